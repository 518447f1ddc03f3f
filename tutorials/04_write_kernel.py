# %% [markdown]
# # Write a kernel in NumPy, Numba and Cython, and hold it to its laws
#
# At the end you will have three versions of RMS norm, each checked by one call, and will have seen it catch mistakes.
# Takes some fifteen seconds; the Cython part needs `pip install cython setuptools` and a C compiler, or is skipped.

# %%
import shutil
import tempfile
from importlib.util import find_spec
from timeit import repeat

import numba
import numpy as np

from minislm.ops.norm import rms_norm
from minislm.testing.kernels import check_kernel

print("each row divided by its root mean square:", rms_norm(np.array([[1.0, 7.0]]), np.ones(2), eps=0.0)[0])

# %% [markdown]
# ## In NumPy
#
# A kernel takes its op's arguments, and `out`, where the result goes if it is given, and `threads`. It refuses what it
# was not made for, takes arrays however they lie in memory, changes none, and saves for backward what its op saves. How
# far it may be off is no matter of taste: `check_kernel` allows what rounding may do to sums of that length.


# %%
def run(rows, x_ND, w_D, eps, out):
    if wrong := [name for name, array in (("x", x_ND), ("w", w_D)) if array.dtype != np.float32]:
        raise TypeError(f"{wrong[0]} must be float32")
    x, w = (np.require(array, requirements=["C", "ALIGNED"]) for array in (x_ND, w_D))  # copies, only where needed
    y_ND, r_N = np.empty_like(x), np.empty(len(x), np.float32)
    rows(x, w, eps, y_ND, r_N)
    if out is not None:
        out[...] = y_ND  # at the end, because out may be x itself
    return y_ND if out is None else out, (x, w, r_N)


def rms_norm_numpy(x_ND, w_D, *, eps, out=None, threads=1):
    return run(numpy_rows, x_ND, w_D, eps, out)


def numpy_rows(x_ND, w_D, eps, y_ND, r_N):
    r_N[:] = 1 / np.sqrt((x_ND * x_ND).mean(axis=1) + eps)
    y_ND[:] = x_ND * r_N[:, None] * w_D


print(f"accepted; largest error {check_kernel(rms_norm_numpy, 'rms_norm'):.0%} of the tolerance")

# %%
FAULTS = {  # what is the check worth? The rows again, with faults to choose from, and what it says of each
    "eps outside the root": "expected",
    "overwrites its input": "wrote into an argument",
    "hides NaN": "with nan",
    "sums by thread": "other bits on 2 threads",
}


def faulty(x_ND, w_D, *, eps, out=None, threads=1):
    def rows(x_ND, w_D, eps, y_ND, r_N):
        x = np.nan_to_num(x_ND) if fault == "hides NaN" else x_ND
        parts = np.array_split(x, threads if fault == "sums by thread" else 1, axis=1)
        square_N = sum((part * part).sum(axis=1) for part in parts) / x.shape[1]
        r_N[:] = 1 / (np.sqrt(square_N) + eps) if fault == "eps outside the root" else 1 / np.sqrt(square_N + eps)
        y_ND[:] = np.multiply(x, r_N[:, None], out=x if fault == "overwrites its input" else None) * w_D

    return run(rows, x_ND, w_D, eps, out)


for fault, words in FAULTS.items():
    try:
        check_kernel(faulty, "rms_norm")
        said = "accepted"
    except AssertionError as error:
        said = str(error)
    print(f"{fault}: {said}")
    assert words in said

# %% [markdown]
# ## In Numba
#
# The loops that one would write in C, in Python. `check_kernel` runs them compiled, and as the Python that they are.


# %%
@numba.njit(error_model="numpy")
def numba_rows(x_ND, w_D, eps, y_ND, r_N):
    for i in range(x_ND.shape[0]):
        total = np.float32(0)
        for j in range(x_ND.shape[1]):
            total += x_ND[i, j] * x_ND[i, j]
        r_N[i] = np.float32(1) / np.sqrt(total / np.float32(x_ND.shape[1]) + eps)
        for j in range(x_ND.shape[1]):
            y_ND[i, j] = x_ND[i, j] * r_N[i] * w_D[j]


def rms_norm_numba(x_ND, w_D, *, eps, out=None, threads=1):
    return run(numba_rows, x_ND, w_D, eps, out)


print(f"accepted; largest error {check_kernel(rms_norm_numba, 'rms_norm'):.0%} of the tolerance")

# %% [markdown]
# ## In Cython
#
# The same loops with C's types: Cython writes C, the C compiler makes of it a module that Python imports.

# %%
SOURCE = """cdef extern float sqrtf(float)

def rows(const float[:, ::1] x, const float[::1] w, float eps, float[:, ::1] y, float[::1] r):
    cdef Py_ssize_t i, j
    cdef float total
    for i in range(x.shape[0]):
        total = 0
        for j in range(x.shape[1]):
            total += x[i, j] * x[i, j]
        r[i] = 1 / sqrtf(total / x.shape[1] + eps)
        for j in range(x.shape[1]):
            y[i, j] = x[i, j] * r[i] * w[j]
"""
tools = {"Cython": find_spec("Cython"), "setuptools": find_spec("setuptools"), "a C compiler": shutil.which("cc")}
if missing := [name for name, found in tools.items() if not found]:
    print("skipped, for want of", *missing)
else:
    from cython import inline

    unchecked = {"boundscheck": False, "wraparound": False, "cdivision": True}
    with tempfile.TemporaryDirectory() as folder:
        cython_rows = inline(SOURCE, lib_dir=folder, cython_compiler_directives=unchecked, quiet=True)["rows"]

    def rms_norm_cython(x_ND, w_D, *, eps, out=None, threads=1):
        return run(cython_rows, x_ND, w_D, eps, out)

    print(f"accepted; largest error {check_kernel(rms_norm_cython, 'rms_norm'):.0%} of the tolerance")

# %% [markdown]
# ## A law of their own, and the time
#
# RMS norm keeps a law that not all ops have: a row twice as long gives the same bits, for doubling rounds nothing. What
# is right may be timed. A kernel that is faster gets a row in the table of `kernels/__init__.py`.

# %%
x_ND, w_D = np.random.default_rng(0).normal(size=(4000, 512)).astype(np.float32), np.ones(512, np.float32)
for kernel in (rms_norm_numpy, rms_norm_numba) + (() if missing else (rms_norm_cython,)):
    assert np.array_equal(kernel(x_ND, w_D, eps=0.0)[0], kernel(2 * x_ND, w_D, eps=0.0)[0])
    elapsed_s = min(repeat(lambda kernel=kernel: kernel(x_ND, w_D, eps=0.0), number=1, repeat=7))
    print(f"{kernel.__name__}: {2 * x_ND.nbytes / elapsed_s / 1e9:.1f} GB read and written a second")
