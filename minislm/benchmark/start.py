"""What a fresh process costs: seconds to import and to the first token, and memory beside the file's bytes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import minislm
from minislm.benchmark.engine import Engine, Facts
from minislm.benchmark.stored import stored_folder
from minislm.evaluation.memory import peak_memory

TENSORS = "*.safetensors"


class Fresh(Engine):
    """Processes that begin, do one thing, and end.

    Parameters
    ----------
    model : str
        The shape or folder that they load; empty for none.
    cache : str
        Where models are kept.
    format : str
        What its weights are stored in.
    """

    def __init__(self, model: str, cache: str, format: str) -> None:
        self.folder = str(stored_folder(model, Path(cache), format)) if model else ""

    def facts(self) -> Facts:
        """Tell the bytes of the model's files."""
        return Facts(minislm.__version__, "", "", self._file_bytes())

    def output(self) -> np.ndarray:
        """Return nothing: there is nothing to compare."""
        return np.empty(0, np.float32)

    def run(self, work: Mapping[str, Any]) -> float | None:
        """Run a process; for the work "memory" return how much it grew, in bytes of the file."""
        if work["start"] == "memory":
            return peak_memory(self.folder, n_tokens=16, prompt_tokens=64).growth_bytes / self._file_bytes()
        start = time.perf_counter()
        subprocess.run(self._command(work["start"]), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        return time.perf_counter() - start

    def _command(self, what: str) -> list[str]:
        if what == "import":
            return [sys.executable, "-c", "import minislm"]
        new = ["-p", "a", "--max-new-tokens", "1", "--quiet"]
        return [sys.executable, "-m", "minislm", "generate", self.folder, *new]

    def _file_bytes(self) -> int:
        return sum(file.stat().st_size for file in Path(self.folder).glob(TENSORS)) if self.folder else 0
