"""Compile the kernels for aarch64, as setup.py does it for this machine.

python cross_build.py ROOT SUFFIX [WORDS]: with the headers of Python under ROOT, to libraries that end in SUFFIX;
only those kernels whose names hold one of the WORDS.
"""

import subprocess
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension

COMPILER = ["aarch64-linux-gnu-gcc", "-fPIC", "-fvisibility=hidden", "-Ikernels/c"]
FLAGS = ["-O3", "-std=gnu11", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]  # those of setup.py
# As setup.py has them: a set, and who gains from it.
DOTPROD = ["-march=armv8.2-a+dotprod"]
GAINING = ("panels", "runtime")


def build(module: Extension, root: str, suffix: str) -> None:
    """Compile one border and the C below it."""
    compiler = [*COMPILER, f"-I{root}/usr/include/python3.11", f"-I{root}/usr/include"]
    border = Path(module.sources[0])
    family = Path("kernels/c") / f"{border.stem.removesuffix('_cython')}.c"
    sets = {"baseline": [], **({"dotprod": DOTPROD} if family.stem in GAINING else {})}
    compiler += [f"-DHAVE_{name}" for name in sets]
    objects = {name: f"{name}-{family.stem}.o" for name in sets} if family.exists() else {}
    for name, output in objects.items():
        given = [*FLAGS, *sets[name], f"-DINSTRUCTION_SET={name}"]
        subprocess.run([*compiler, *given, "-c", family, "-o", output], check=True)
    library = border.with_name(border.stem + suffix)
    subprocess.run(
        [*compiler, "-O2", "-shared", *module.sources, *objects.values(), "-o", library, "-pthread"], check=True
    )


root, suffix, words = sys.argv[1], sys.argv[2], sys.argv[3].split()
borders = [
    border
    for border in sorted(Path("kernels").glob("*_cython.pyx"))
    if not words or border.stem == "runtime_cython" or any(word in border.stem for word in words)
]
modules = cythonize(
    [Extension(f"minislm.kernels.{border.stem}", [str(border)]) for border in borders],
    language_level=3,
    include_path=["kernels"],
    quiet=True,
)
for module in modules:
    build(module, root, suffix)
