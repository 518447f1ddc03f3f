"""Peak memory of running a model, measured in a fresh process.

Run as ``python -m minislm.evaluation.memory MODEL NEW PROMPT`` this module is that process: it runs the smallest model
so that all code is loaded, then loads the one in question, generates NEW tokens after PROMPT ones and prints what its
resident memory was before and at the peak.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import minislm
from minislm.errors import MinislmError
from minislm.evaluation.speed import plain_settings
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process that loads a model and generates with it.

    Parameters
    ----------
    before_bytes : int
        With everything imported, before the model is loaded.
    peak_bytes : int
        The most at any time.
    """

    before_bytes: int
    peak_bytes: int

    @property
    def growth_bytes(self) -> int:
        """What loading and running the model added."""
        return self.peak_bytes - self.before_bytes


def peak_memory(
    path: str | Path, *, n_tokens: int = 16, prompt_tokens: int = 16, activations: str | None = None
) -> Memory:
    """Measure the memory that loading a model and generating with it takes, in a process of its own.

    Parameters
    ----------
    path : str or Path
        A model folder.
    n_tokens : int
        Tokens to generate.
    prompt_tokens : int
        Length of the prompt, in tokens.
    activations : str, optional
        As of `minislm.load`.

    Returns
    -------
    Memory
        Bytes before loading and at the peak.

    Raises
    ------
    MinislmError
        Code ``measurement_failed``: the process failed; the message carries its last line.
    """
    command = [sys.executable, "-m", "minislm.evaluation.memory", str(path), str(n_tokens), str(prompt_tokens)]
    command += [activations] if activations else []
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise MinislmError("measurement_failed", f"the process that measures memory failed: {last}")
    return Memory(**json.loads(run.stdout))


def resident_peak() -> int:
    """Tell the largest resident memory of this process so far, or since `forget_peak`.

    Returns
    -------
    int
        Bytes.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def forget_peak() -> int:
    """Make the present resident memory of this process its peak, where the system can (Linux).

    Returns
    -------
    int
        Bytes that are resident now; where the system does not tell, the peak.
    """
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resident_peak()


def _measure(path: str, n_tokens: int, prompt_tokens: int, activations: str | None = None) -> Memory:
    _run(minislm.LanguageModel(_smallest(), Tokenizer.train([], kind="bytes")), 2, 2)  # what is loaded at first use
    before = forget_peak()
    _run(minislm.load(path, activations=activations), n_tokens, prompt_tokens)
    return Memory(before, resident_peak())


def _smallest() -> Decoder:
    sizes = DecoderConfig.uniform(vocab_size=257, d_model=2, context=4, n_layers=1, n_heads=1, positions="rotary")
    return Decoder.create(sizes)


def _run(lm: minislm.LanguageModel, n_tokens: int, prompt_tokens: int) -> None:
    prompt = [i % lm.model.config.vocab_size for i in range(prompt_tokens)]
    dataclasses.replace(lm, settings=plain_settings(lm, n_tokens)).generate(prompt)


if __name__ == "__main__":
    measured = _measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
    print(json.dumps({"before_bytes": measured.before_bytes, "peak_bytes": measured.peak_bytes}))
