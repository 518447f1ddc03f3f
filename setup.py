"""What pyproject.toml cannot say: where the kernels live, and how they are compiled.

The source folder `kernels/` is installed as `minislm.kernels`. Every `kernels/<family>_cython.pyx` is one extension
module; the plain C below it, `kernels/c/<family>.c`, is compiled once per instruction set and linked into it. Without a
C compiler the installation goes on with the Numba and NumPy tiers; MINISLM_REQUIRE_EXTENSIONS=1 makes that a failure.
"""

import os
import platform
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError
from setuptools.modified import newer_group

KERNELS = Path("kernels")
PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
REQUIRED = os.environ.get("MINISLM_REQUIRE_EXTENSIONS") == "1"

# a*b+c may become one instruction; no other liberty is taken with arithmetic, and NaN and infinity keep their meaning.
FLAGS = ["-O3", "-std=gnu11", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = ["-mbmi2", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mprefer-vector-width=512"]
VBMI2 = ["-mavx512vbmi", "-mavx512vbmi2"]
OF_X86 = {
    "baseline": [],
    "avx2": AVX2,
    "avx2vnni": [*AVX2, "-mavxvnni"],
    "avx512": [*AVX2, *AVX512],
    "avx512vbmi2": [*AVX2, *AVX512, *VBMI2],
    "amx": [*AVX2, *AVX512, *VBMI2, "-mamx-tile", "-mamx-int8"],
}
OF_ARM = {"baseline": [], "dotprod": ["-march=armv8.2-a+dotprod"]}
INSTRUCTION_SETS = OF_ARM if platform.machine() in ("aarch64", "arm64") else OF_X86
# Families that gain from a set, where not all do.
GAINING = {
    "avx2vnni": {"attention", "panels"},
    "avx512vbmi2": {"panels", "decoded_panels"},
    "amx": {"panels"},
    "dotprod": {"panels"},
}


def extensions() -> list[Extension]:
    """One extension per Cython border file; empty when there is none."""
    sources = sorted(KERNELS.glob("*.pyx"))
    if not sources:
        return []
    from Cython.Build import cythonize

    modules = [
        Extension(
            f"minislm.kernels.{source.stem}",
            [str(source)],
            include_dirs=["kernels/c"],
            depends=["setup.py", *map(str, sorted(files_of(source) | files_of(c_source(source.stem))))],
            extra_compile_args=["-O2", "-fvisibility=hidden"],
            extra_link_args=["-pthread"],
        )
        for source in sources
    ]
    compiled: list[Extension] = cythonize(modules, language_level=3, include_path=["kernels"], quiet=True)
    for module in compiled:
        module.optional = not REQUIRED  # cythonize forgets it when it is given earlier
    return compiled


def family(module: str) -> str:
    """``"norm"`` for ``"minislm.kernels.norm_cython"``."""
    return module.rpartition(".")[2].removesuffix("_cython")


def c_source(module: str) -> Path:
    """``kernels/c/norm.c`` for the same; the runtime has none, its files are compiled once."""
    return KERNELS / "c" / f"{family(module)}.c"


def files_of(source: Path) -> set[Path]:
    """Return a source and the headers that it takes in, directly or through others; nothing if it does not exist."""
    if not source.exists():
        return set()
    text = source.read_text(encoding="utf-8")
    names = re.findall(r'(?:#include|extern from) "([\w.]+)"', text)
    cimported = re.findall(r"^from (\w+) cimport", text, re.MULTILINE)
    headers = [*(KERNELS / "c" / name for name in names), *(KERNELS / f"{name}.pxd" for name in cimported)]
    return {source}.union(*map(files_of, headers))


class BuildKernels(build_ext):
    """Compile the C of each family once per instruction set, and link the objects into its extension."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.parallel is None:
            self.parallel = PROCESSORS

    def build_extensions(self) -> None:
        self.sets = {
            name: flags for name, flags in INSTRUCTION_SETS.items() if name == "baseline" or self.accepts(flags)
        }
        with ThreadPoolExecutor(self.parallel) as pool:
            self.objects = {
                ext.name: [pool.submit(self.compile_for, ext, name) for name in self.sets_of(ext)]
                for ext in self.extensions
                if self.is_stale(ext)
            }
        super().build_extensions()

    def accepts(self, flags: list[str]) -> bool:
        """Tell whether the compiler takes these flags for this machine; those that it refuses are left out alone."""
        probe = Path(self.build_temp) / "probe.c"
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_text("int main(void) { return 0; }\n")
        try:
            self.compiler.compile([str(probe)], output_dir=str(probe.parent), extra_postargs=flags)
        except CompileError:
            return False
        return True

    def sets_of(self, ext: Extension) -> list[str]:
        """Name the sets that an extension gains from; the runtime tells of all."""
        own = family(ext.name)
        return [name for name in self.sets if own in {"runtime", *GAINING.get(name, {own})}]

    def is_stale(self, ext: Extension) -> bool:
        """Tell whether there is C to compile for an extension, and it changed."""
        changed = newer_group([*ext.sources, *ext.depends], self.get_ext_fullpath(ext.name), "newer")
        return c_source(ext.name).exists() and bool(self.force or changed)

    def compile_for(self, ext: Extension, name: str) -> str:
        """Compile the C of a family for one set."""
        objects: list[str] = self.compiler.compile(
            [str(c_source(ext.name))],
            output_dir=str(Path(self.build_temp) / name),
            macros=[*self.macros_of(ext), ("INSTRUCTION_SET", name)],
            include_dirs=ext.include_dirs,
            extra_postargs=[*FLAGS, *self.sets[name]],
        )
        return objects[0]

    def macros_of(self, ext: Extension) -> list[tuple[str, None]]:
        """Say which sets there are."""
        return [(f"HAVE_{name}", None) for name in self.sets_of(ext)]

    def build_extension(self, ext: Extension) -> None:
        ext.define_macros = self.macros_of(ext)
        ext.extra_objects = [done.result() for done in self.objects.get(ext.name, ())]
        super().build_extension(ext)


WHOLE = KERNELS.is_dir()  # without the folder everything works, in NumPy
setup(
    packages=[*find_packages(include=["minislm", "minislm.*"]), *(["minislm.kernels"] if WHOLE else [])],
    package_dir={"minislm.kernels": "kernels"} if WHOLE else {},
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildKernels},
)
