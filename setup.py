"""What pyproject.toml cannot say: where the kernels live, and how they are compiled.

The source folder `kernels/` is installed as `minislm.kernels`. Every `kernels/*.pyx` is one extension module over the
plain C in `kernels/c/`. Without a working C compiler the installation goes on with the Numba and NumPy tiers; set
MINISLM_REQUIRE_EXTENSIONS=1 to make that a failure instead.
"""

import os
from pathlib import Path

from setuptools import Extension, find_packages, setup

HERE = Path(__file__).parent
REQUIRED = os.environ.get("MINISLM_REQUIRE_EXTENSIONS") == "1"


def extensions() -> list[Extension]:
    """One extension per Cython border file; empty when there is none."""
    sources = sorted((HERE / "kernels").glob("*.pyx"))
    if not sources:
        return []
    from Cython.Build import cythonize

    modules = [
        Extension(
            f"minislm.kernels.{source.stem}",
            [str(source.relative_to(HERE))],
            include_dirs=["kernels/c"],
            depends=[str(path.relative_to(HERE)) for path in sorted((HERE / "kernels" / "c").glob("*"))],
            extra_compile_args=["-O3", "-ffp-contract=off"],
            optional=not REQUIRED,
        )
        for source in sources
    ]
    return cythonize(modules, language_level=3, quiet=True)


setup(
    packages=[*find_packages(include=["minislm", "minislm.*"]), "minislm.kernels"],
    package_dir={"minislm.kernels": "kernels"},
    ext_modules=extensions(),
)
