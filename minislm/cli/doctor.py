"""``minislm doctor``: what this installation is made of, and which implementation of each op runs and why."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sysconfig
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from minislm import __version__
from minislm.cli.common import Common, verb
from minislm.cli.terminal import print_table

PACKAGES = ("numpy", "numba", "tokenizers", "ml_dtypes", "click", "rich", "PyYAML", "jinja2", "matplotlib")

EXAMPLES = """
minislm doctor
minislm doctor --json
minislm doctor --threads 1
minislm doctor --warm
"""


@verb("doctor", examples=EXAMPLES)
@click.option("--warm", is_flag=True, help="Compile the Numba kernels now, so that nobody waits for them later.")
def command(common: Common, warm: bool) -> None:
    """Show what this installation is made of.

    Versions, the processor and its instruction sets, the compiled kernels, threads, and what runs each op and why.
    """
    from minislm import dispatch

    if warm:
        _warm(common)
    values = {
        "versions": _versions(),
        "machine": _machine(),
        "kernels": _kernels(warm),
        "ops": {name: choice._asdict() for name, choice in dispatch.backend().items()},
    }
    common.result(values, lambda: _render(values))


def _render(values: dict[str, Any]) -> None:
    for title in ("versions", "machine", "kernels"):
        rows = [(name, ", ".join(v) if isinstance(v, list) else str(v)) for name, v in values[title].items()]
        print_table((title, ""), rows)
        click.echo()
    print_table(("op", "tier", "why"), [(name, c["tier"], c["reason"]) for name, c in values["ops"].items()])


def _versions() -> dict[str, str]:
    found = {"minislm": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _machine() -> dict[str, Any]:
    import numpy as np

    from minislm import dispatch
    from minislm.processors import available_processors

    configuration: dict[str, Any] = np.show_config(mode="dicts")  # type: ignore[assignment]
    blas = configuration.get("Build Dependencies", {}).get("blas", {})
    limits = [
        f"{name}={os.environ[name]}" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS") if name in os.environ
    ]
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "processors available": available_processors(),
        "threads of the kernels": dispatch.threads(),
        "BLAS of NumPy": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
        "threads of BLAS": ", ".join(limits) or "not limited by the environment",
        "NumPy's instruction sets": configuration.get("SIMD Extensions", {}).get("found", []),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _modules(technology: str) -> list[str]:
    table = importlib.import_module("minislm.kernels").KERNELS
    return sorted({row.function.partition(":")[0] for row in table if row.technology == technology})


def _warm(common: Common) -> None:
    """Import every Numba module, which compiles what is not kept on disk yet."""
    if importlib.util.find_spec("minislm.kernels") is None:
        return
    modules = _modules("numba")
    for number, name in enumerate(modules, start=1):
        began = time.perf_counter()
        _states([name])
        common.note(f"{number:>2} of {len(modules)}  {name:<32} {time.perf_counter() - began:>6.1f} s")


def _kernels(warm: bool) -> dict[str, Any]:
    """Say which compiled modules are there, and what stands in the way of the others."""
    found: dict[str, Any] = {"installed": importlib.util.find_spec("minislm.kernels") is not None}
    found["C compiler"] = _compiler()
    if not found["installed"]:
        return found
    found["cython modules"] = _states(_modules("cython"))
    found["numba modules"] = _states(_modules("numba")) if warm else _uncompiled(_modules("numba"))
    if importlib.util.find_spec("minislm.kernels.runtime_cython") is not None:
        runtime = importlib.import_module("minislm.kernels.runtime_cython")
        found["instruction sets compiled"] = list(runtime.BUILT)
        found["instruction sets available"] = list(runtime.AVAILABLE)
        found["instruction set in use"] = runtime.chosen()
    return found


def _compiler() -> str:
    """Find the C compiler that an installation would take, and see whether it answers."""
    words = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    path = shutil.which(words[0])
    if path is None:
        return f"{words[0]} is not found: no kernels can be compiled here"
    if subprocess.run([*words, "--version"], capture_output=True, check=False).returncode != 0:
        return f"{path} does not work: no kernels can be compiled here"
    return path


def _uncompiled(modules: list[str]) -> str:
    """Say whether Numba modules are there, without compiling them."""
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed: pip install numba"
    return f"{len(modules)}, each compiled when it is first used, or now by minislm doctor --warm"


def _states(modules: list[str]) -> list[str]:
    """Say how many modules can be used, and what stands in the way of the others."""
    broken = []
    for name in modules:
        try:
            importlib.import_module(f"minislm.kernels.{name}")
        except ImportError as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name == f"minislm.kernels.{name}"
            broken.append(f"{name} is not built" if missing else f"{name} cannot be used: {error}")
    if broken == [f"{name} is not built" for name in modules]:
        return [f"none of {len(modules)} is built; install minislm again where there is a C compiler"]
    return [f"{len(modules) - len(broken)} of {len(modules)} ready", *broken]
