# %% [markdown]
# # Quantize a matrix, and see every error
#
# At the end you will have turned a matrix into small whole numbers in each storage format of minislm, and will know how
# large an error is, where it comes from, what it does to a product, and what it saves. Takes about a second.

# %%
import numpy as np

from minislm.ops.formats import format_named
from minislm.ops.quantized import quantize_activations
from minislm.weights.quantized import Quantized

rng = np.random.default_rng(0)
row = np.array([[-0.80, -0.31, -0.02, 0.0, 0.07, 0.18, 0.45, 0.66]], np.float32)
print("a row of weights:", *row[0])


def bar(part, width=40):
    return "█" * round(part * width)


# %% [markdown]
# ## One row
#
# Four bits count from 0 to 15. Let 8 stand for zero: then a code is from 8 steps below zero to 7 above. The step, here
# called scale, is the smallest that reaches the outermost weights (negative where the largest is positive, which then
# has the eighth step); every weight moves to the nearest.

# %%
scale = max(row.max() / 7, -row.min() / 8)
codes = np.rint(row / scale).astype(int) + 8
for weight, code, value in zip(row[0], codes[0], scale * (codes[0] - 8), strict=True):
    print(f"{weight:6.2f} -> code {code:2} -> {value:6.2f}, an error of {(value - weight) / scale:5.2f} steps")
    assert abs(value - weight) <= scale / 2 * (1 + 1e-6), "rounding errs by half a step at most"
int4 = format_named("int4")
assert np.array_equal(int4.round(row, int4.fit(row)[0], None), codes), "the format does the same"
packed_OP = int4.pack(codes.astype(np.uint8))
print(f"{row.nbytes} bytes of float32 became {packed_OP.nbytes} of codes, {bytes(packed_OP).hex(' ')}, and a scale")

# %% [markdown]
# ## A matrix, in every format
#
# `int4` has a scale for each row, `int4-32` one for every 32 weights, `uint4-32` a zero of its own beside each scale,
# for weights that do not lie around 0. Weights of real models have long tails: a few are many times the usual size.

# %%
w_OI = (0.02 * rng.standard_t(4, size=(256, 512))).astype(np.float32)
names = [
    f"{kind}{bits}{group}" for bits in (8, 4, 3, 2) for kind, group in (("int", ""), ("int", "-32"), ("uint", "-32"))
]
stored = {name: Quantized.nearest(w_OI, name) for name in names}


def steps_off(name):
    scales_OI = stored[name].format.spread(stored[name].scales.astype(np.float32), w_OI.shape[1])
    return (stored[name].dense() - w_OI) / scales_OI


def relative_error(result, exact):
    return float(np.linalg.norm(result - exact) / np.linalg.norm(exact))


errors = {name: relative_error(stored[name].dense(), w_OI) for name in names}
print("format     bytes  bits/weight  largest error in steps  relative error")
for name, weight in stored.items():
    largest = np.abs(steps_off(name)).max()
    print(f"{name:8} {weight.nbytes:7} {weight.bits_per_weight:12.2f} {largest:23.4f} {errors[name]:15.4f}")
    assert largest <= 0.5 + 1e-4, "half a step, and what rounding of float32 adds"
assert all(errors[f"int{bits}-32"] < errors[f"int{bits}"] / 1.4 for bits in (8, 4, 3, 2)), "own scales for short groups"
assert all(errors[f"uint{bits}-32"] < errors[f"int{bits}-32"] for bits in (8, 4, 3, 2)), "and own zeros"
assert stored["int4-32"].nbytes * 7 < w_OI.nbytes, "a seventh of the bytes"

# %% [markdown]
# ## How errors are spread
#
# Where steps are small beside the weights, any error from -1/2 to 1/2 of a step is as likely as any other, and the
# deviation is 1/√12 of a step. With 2 bits and one scale for a row, nearly all weights lie within the step around zero:
# they become zero, and the error is the weight itself.

# %%
for name in ("int8", "int4", "int2"):
    parts = np.histogram(steps_off(name), bins=10, range=(-0.5, 0.5))[0] / w_OI.size
    print(f"{name}: error in steps; {(stored[name].dense() == 0).mean():.0%} of the weights became zero")
    print("\n".join(f"{-0.5 + i / 10:5.1f} to {-0.4 + i / 10:4.1f} {bar(2 * part)}" for i, part in enumerate(parts)))
assert abs(steps_off("int8").std() * np.sqrt(12) - 1) < 0.01
assert (stored["int2"].dense() == 0).mean() > 0.9

# %% [markdown]
# ## Levels that are not evenly spaced
#
# Most weights are small, so that levels should lie close where they are many. `nf4` has 16, near quantiles of a normal
# distribution, stretched to the largest weight of a group. `ternary` has but -1, 0 and 1, and half of the matrix is
# lost: it is for models that are trained with it.

# %%
print("levels of nf4, in 127ths of the largest weight:", *format_named("nf4").levels)
for name in ("int4-64", "uint4-64", "nf4-64", "ternary-64"):
    weight = Quantized.nearest(w_OI, name)
    errors[name] = relative_error(weight.dense(), w_OI)
    print(f"{name:10} {weight.bits_per_weight:5.3f} bits/weight, error {errors[name]:.4f} {bar(errors[name])}")
assert errors["nf4-64"] < 0.95 * errors["uint4-64"] < errors["int4-64"], "fewer bits than with zeros, and better"
assert 0.5 < errors["ternary-64"] < 0.65

# %% [markdown]
# ## One outlier
#
# Its row must stretch its steps to reach it, and pays everywhere; with groups, only its 31 neighbours pay.

# %%
hurt_OI = w_OI[:1].copy()
hurt_OI[0, 100] = 2.0
for name in ("int4", "int4-32"):
    off_JZ = (Quantized.nearest(hurt_OI, name).dense() - hurt_OI).reshape(16, 32)
    size_J = np.sqrt((off_JZ**2).mean(axis=1))
    print(name, "error of each group of 32:", *(f"{size:.3f}" for size in size_J))
    worse = int((size_J > 3 * np.sqrt(((stored["int4-32"].dense()[:1] - w_OI[:1]) ** 2).mean())).sum())
    assert worse == (16 if name == "int4" else 1)

# %% [markdown]
# ## What a product feels
#
# A product sums many weights times inputs. Errors of either sign add up as the products themselves do, by the square
# root of their number, so that the result is about as wrong, relatively, as the matrix.

# %%
x_NI = rng.normal(size=(64, 512)).astype(np.float32)
for name, weight in stored.items():
    error = relative_error(weight.apply(x_NI), x_NI @ w_OI.T)
    print(f"{name:8} matrix off by {errors[name]:.4f}, product off by {error:.4f}")
    assert 0.9 < error / errors[name] < 1.1

# %% [markdown]
# Whole numbers multiply faster than floats, if the inputs are whole numbers too: signed bytes, with one scale `a` for a
# row of inputs (`int8-row`) or for every 32 (`int8-32`). Each input is off by a/2 at most, so the product by Σ |w| a/2.
# Real activations have outliers, in the same few places for every token: short groups keep them to themselves.

# %%
x_NI[:, 7] *= 40
added = {}
for activations, group in (("int8-row", 512), ("int8-32", 32)):
    y_NO = stored["int8-32"].apply(x_NI)
    rounded = Quantized.nearest(w_OI, "int8-32", activations)
    _, scales_NJ = quantize_activations(x_NI, group=group)
    limit_NO = np.repeat(scales_NJ, group, axis=1) / 2 @ np.abs(rounded.dense()).T
    used = np.abs(rounded.apply(x_NI) - y_NO) / limit_NO
    added[activations] = relative_error(rounded.apply(x_NI), y_NO)
    print(f"{activations:8} adds an error of {added[activations]:.4f}, {used.max():.0%} of the bound at most")
    assert used.max() <= 1 + 1e-4
assert added["int8-row"] > 3 * added["int8-32"]
