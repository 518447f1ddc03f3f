"""Peak memory of running a model, measured in a fresh process.

Run as ``python -m minislm.evaluation.memory MODEL [N]`` this module is that process: it loads the model, generates N
tokens and prints what its resident memory was before and at the peak.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from minislm.errors import MinislmError


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


def peak_memory(path: str | Path, *, n_tokens: int = 16, prompt_tokens: int = 16) -> Memory:
    """Measure the memory that loading a model and generating with it takes, in a process of its own.

    Parameters
    ----------
    path : str or Path
        A model folder.
    n_tokens : int
        Tokens to generate.
    prompt_tokens : int
        Length of the prompt, in tokens.

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
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise MinislmError("measurement_failed", f"the process that measures memory failed: {last}")
    return Memory(**json.loads(run.stdout))


def resident_peak() -> int:
    """Tell the largest resident memory of this process so far.

    Returns
    -------
    int
        Bytes.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_now() -> int:
    """Tell the resident memory of this process.

    Returns
    -------
    int
        Bytes; where the system does not tell, the peak.
    """
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resident_peak()


def _measure(path: str, n_tokens: int, prompt_tokens: int) -> Memory:
    import minislm
    from minislm.inference import decoding  # noqa: F401  (imported before the first reading)
    from minislm.models import decoder  # noqa: F401

    before = resident_now()
    lm = minislm.load(path)
    prompt = [i % lm.model.config.vocab_size for i in range(prompt_tokens)]
    lm.generate(prompt, max_new_tokens=n_tokens, temperature=0.0, ignore_eos=True)
    return Memory(before, resident_peak())


if __name__ == "__main__":
    measured = _measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps({"before_bytes": measured.before_bytes, "peak_bytes": measured.peak_bytes}))
