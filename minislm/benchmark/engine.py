"""Engine: something that can be timed, in a process of its own, so that no pool of threads disturbs another."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import statistics
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minislm.errors import MinislmError

REST_S = 0.05
"""Between two engines: threads of the one before have stopped spinning by then."""


@dataclass(frozen=True)
class Facts:
    """What an engine tells about itself.

    Parameters
    ----------
    version : str
        Of the package.
    instructions : str
        The instruction set that it really uses, as far as it can be found out.
    settings : str
        The settings that matter.
    weights_bytes : int
        Of the model as this engine stores it; 0: not known.
    unit_bytes, unit_products : int
        What one unit of a row's amount reads and multiplies, a token alone; 0: not known.
    """

    version: str
    instructions: str
    settings: str
    weights_bytes: int = 0
    unit_bytes: int = 0
    unit_products: int = 0


class Engine(ABC):
    """A model, or one product, in one library with one set of settings; made as ``Engine(**options)``."""

    @abstractmethod
    def facts(self) -> Facts:
        """Tell what runs; asked after the first run.

        Returns
        -------
        Facts
            Version, instruction set, settings, bytes.
        """

    @abstractmethod
    def output(self) -> np.ndarray:
        """Compute what is compared with the reference's, for inputs that follow from the options alone.

        Returns
        -------
        ndarray of float32
            Such as logits, (N, V).
        """

    def expected(self) -> np.ndarray | None:
        """Compute what `output` should be, where no other engine of the row tells.

        Returns
        -------
        ndarray, optional
            Of the shape of the output. None: the row's reference tells.
        """
        return None

    @abstractmethod
    def run(self, work: Mapping[str, Any]) -> float | None:
        """Do the work once.

        Parameters
        ----------
        work : mapping
            What to do, in words of the kind of row.

        Returns
        -------
        float, optional
            The seconds that count, where some of the work only prepares; or what is measured in place of seconds. None:
            all seconds.
        """


@dataclass(frozen=True)
class Contender:
    """An engine of a row.

    Parameters
    ----------
    label : str
        As it is shown.
    engine : str
        ``"module:Class"``; a module that begins with a dot is one of `minislm.benchmark`.
    options : mapping
        What the class is made with.
    package : str
        The module that must be installed; empty for minislm itself.
    threads : int, optional
        None: as many as the others.
    """

    label: str
    engine: str
    options: Mapping[str, Any] = field(default_factory=dict)
    package: str = ""
    threads: int | None = None

    @property
    def ours(self) -> bool:
        """Whether it is minislm."""
        return not self.package


class Remote:
    """An engine in a process of its own.

    Parameters
    ----------
    contender : Contender
        Which.
    threads : int
        For all it does; the process is bound to so many processors.
    amx : bool
        Whether it may use AMX.

    Raises
    ------
    MinislmError
        Code ``engine_failed``, with the engine's own error.
    """

    def __init__(self, contender: Contender, threads: int, *, amx: bool = True) -> None:
        self.contender = contender
        self._log = tempfile.NamedTemporaryFile("rb", prefix="minislm-bench-")  # noqa: SIM115 (until `close`)
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, contender, threads, amx, self._log.name), daemon=True
        )
        environment = dict(os.environ)
        os.environ.update(_environment(threads))
        try:
            self._process.start()
        finally:
            os.environ.clear()
            os.environ.update(environment)
        theirs.close()
        try:
            self._answer()
        except MinislmError:
            self.close()
            raise

    def ask(self, verb: str, *args: Any) -> Any:
        """Let the engine do something.

        Parameters
        ----------
        verb : {"facts", "output", "expected", "time"}
            What; the last takes the work and the seconds of a round, and gives the seconds of one run.
        *args
            Its arguments.

        Returns
        -------
        Any
            What it answers.

        Raises
        ------
        MinislmError
            Code ``engine_failed``.
        """
        self._pipe.send((verb, args))
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
        self._pipe.close()
        self._log.close()

    def _answer(self) -> Any:
        try:
            good, value = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join(5)
            good, value = False, f"its process ended with exit code {self._process.exitcode}; {self._last_words()}"
        if not good:
            raise MinislmError("engine_failed", f"{self.contender.label}: {value}")
        return value

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def _environment(threads: int) -> dict[str, str]:
    """Return what libraries read when they are loaded: threads, and silence."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1"}
    return {**dict.fromkeys(names, str(threads)), "OPENBLAS_THREAD_TIMEOUT": "4", **quiet}


def _serve(pipe: Any, contender: Contender, threads: int, amx: bool, log: str) -> None:
    """Answer requests until the pipe closes; the life of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        engine = _made(contender, threads, amx)
    except BaseException as error:
        pipe.send((False, f"{type(error).__name__}: {error}"))
        return
    pipe.send((True, None))
    with contextlib.suppress(EOFError):
        while True:
            verb, args = pipe.recv()
            try:
                pipe.send((True, asked(engine, verb, *args)))
            except Exception as error:
                pipe.send((False, f"{type(error).__name__}: {error}"))


def _made(contender: Contender, threads: int, amx: bool) -> Engine:
    """Bind the process to its processors and load the engine."""
    from minislm import dispatch

    if not amx:
        from minislm.benchmark.forbid import forbid_amx

        forbid_amx()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    dispatch.threads(contender.threads or threads)
    module, _, name = contender.engine.partition(":")
    kind: type[Engine] = getattr(importlib.import_module(module, "minislm.benchmark"), name)
    return kind(**contender.options)


def asked(engine: Engine, verb: str, *args: Any) -> Any:
    """Let an engine of this process do something.

    Parameters
    ----------
    engine : Engine
        Which.
    verb : str
        As of `Remote.ask`.
    *args
        Its arguments.

    Returns
    -------
    Any
        What it answers.
    """
    return _timed(engine, *args) if verb == "time" else getattr(engine, verb)(*args)


def _timed(engine: Engine, work: Mapping[str, Any], seconds: float) -> float:
    """Do the work as often as fits into a round, at least once; return the median seconds of one run."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    while not found or time.perf_counter() < end:
        start = time.perf_counter()
        counted = engine.run(work)
        found.append(time.perf_counter() - start if counted is None else counted)
    return statistics.median(found)
