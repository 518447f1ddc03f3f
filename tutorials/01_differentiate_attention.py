# %% [markdown]
# # Attention, forward and backward, by hand
#
# At the end you will have written causal attention and its gradient in a few lines of NumPy, checked every number of
# the gradient against differences, and found the same numbers in `minislm.ops.attention`. Takes about a second.
# Array names end in their axes: T query positions, S key positions, K numbers in a query, key or value.

# %%
import numpy as np

from minislm.dispatch import backend, ops
from minislm.ops.attention import attention, attention_backward
from minislm.testing.tolerances import assert_close

words = ["the", "cat", "that", "I", "saw", "slept"]
rng = np.random.default_rng(0)
q_TK, k_SK, v_SK = rng.normal(size=(3, len(words), 4))  # one query, one key and one value for each word
print(f"{len(words)} words, queries {q_TK.shape}, keys {k_SK.shape}, values {v_SK.shape}")


# %% [markdown]
# ## Forward
#
# Each query is compared with each key; the products become probabilities; the probabilities mix the values. A word must
# not see the words after it, so their products become -inf, whose exponential is 0.
#
#     s = q kᵀ / √K        p = softmax(s)        y = p v


# %%
def softmax(s_TS):
    e_TS = np.exp(s_TS - s_TS.max(axis=-1, keepdims=True))  # the largest exponent is 0: nothing overflows
    return e_TS / e_TS.sum(axis=-1, keepdims=True)


def forward(q_TK, k_SK, v_SK):
    s_TS = q_TK @ k_SK.T / np.sqrt(q_TK.shape[1])
    s_TS[np.triu_indices(len(s_TS), 1)] = -np.inf
    p_TS = softmax(s_TS)
    return p_TS @ v_SK, p_TS


y_TK, p_TS = forward(q_TK, k_SK, v_SK)
for word, row in zip(words, p_TS, strict=True):
    print(f"{word:>6} looks at", "  ".join(f"{other} {part:4.0%}" for other, part in zip(words, row, strict=True)))
assert np.allclose(p_TS.sum(axis=1), 1.0), "each word spends all of its attention"
assert not np.triu(p_TS, 1).any(), "no word sees a later one"
assert np.array_equal(y_TK[0], v_SK[0]), "the first word sees itself alone, and takes its own value"

# %% [markdown]
# Why √K? A product of two random vectors of K numbers has the deviation √K. Without the division the softmax of long
# vectors would choose one key and forget the others, and a choice that is certain has no gradient to learn from.

# %%
for width in (4, 64, 1024):
    products = rng.normal(size=(100, width)) @ rng.normal(size=(100, width)).T
    surest = [float(softmax(s_TS).max(axis=1).mean()) for s_TS in (products / np.sqrt(width), products)]
    print(f"K {width:4}: products spread by {products.std():5.1f}; largest of 100 probabilities", end=" ")
    print(f"{surest[0]:.2f} with the division, {surest[1]:.2f} without")
    assert abs(products.std() / np.sqrt(width) - 1) < 0.1
assert surest[0] < 0.2 < 0.8 < surest[1]


# %% [markdown]
# ## Backward
#
# Let the loss be any function of y; all that attention is told of it is dy, its gradient with respect to y. Backward
# undoes the lines of forward from the last to the first:
#
# - y = p v is a product, linear in both: dv = pᵀ dy and dp = dy vᵀ.
# - softmax: a score raises its own probability and lowers all others, ∂pᵢ/∂sⱼ = pᵢ (δᵢⱼ - pⱼ), so
#   ds = p (dp - Σ p dp). Where a key is hidden, p is 0, and so is ds: the mask needs no line of its own.
# - s = q kᵀ / √K is a product again: dq = ds k / √K and dk = dsᵀ q / √K.


# %%
def backward(dy_TK, q_TK, k_SK, v_SK, p_TS):
    dv_SK = p_TS.T @ dy_TK  # undo y = p v
    dp_TS = dy_TK @ v_SK.T  # undo y = p v
    ds_TS = p_TS * (dp_TS - (p_TS * dp_TS).sum(axis=1, keepdims=True))  # undo p = softmax(s)
    ds_TS /= np.sqrt(q_TK.shape[1])  # undo s = q kᵀ / √K
    return ds_TS @ k_SK, ds_TS.T @ q_TK, dv_SK


dy_TK = rng.normal(size=y_TK.shape)
gradients = backward(dy_TK, q_TK, k_SK, v_SK, p_TS)
print("how much each word's query matters:", np.linalg.norm(gradients[0], axis=1).round(2))
assert not gradients[0][0].any(), "the first word has one key: whatever its query is, it gets the same value"

# %% [markdown]
# ## Is it right?
#
# Move one number by h to both sides and see how the loss changes: a central difference is off by about h², as long as
# rounding, about 1e-16 / h, is smaller. Every number of the three gradients is checked.


# %%
def largest_error(gradients, h=1e-5):
    worst = 0.0
    for array, gradient in zip((q_TK, k_SK, v_SK), gradients, strict=True):
        slopes = np.empty_like(array)
        for place in np.ndindex(array.shape):
            before, losses = array[place], []
            for array[place] in (before + h, before - h):
                losses.append((forward(q_TK, k_SK, v_SK)[0] * dy_TK).sum())
            array[place] = before
            slopes[place] = (losses[0] - losses[1]) / (2 * h)
        worst = max(worst, float(np.abs(gradient - slopes).max() / np.abs(slopes).max()))
    return worst


errors = {h: largest_error(gradients, h) for h in (1e-1, 1e-2, 1e-3, 1e-5, 1e-9)}
print("\n".join(f"h = {h:.0e}: largest error {error:.1e}" for h, error in errors.items()))
assert 50 < errors[1e-2] / errors[1e-3] < 200, "ten times smaller h: a hundred times smaller error"
assert errors[1e-5] < 1e-9 < errors[1e-9], "and too small an h drowns in rounding"

# %% [markdown]
# A check is worth what it catches. Forget the factor 1 / √K, or the sum that the softmax subtracts, and see.

# %%
no_scale = (gradients[0] * np.sqrt(4), gradients[1] * np.sqrt(4), gradients[2])
no_sum = ((p_TS * (dy_TK @ v_SK.T)) @ k_SK / np.sqrt(4), *gradients[1:])
for fault, wrong in {"no division by √K": no_scale, "no subtracted sum": no_sum}.items():
    print(f"{fault}: largest error {largest_error(wrong):.2f}")
    assert largest_error(wrong) > 0.1

# %% [markdown]
# ## The same in the library
#
# `ops.attention` takes a batch B and many heads: H of queries, G of keys and values that neighbours share. It keeps no
# probabilities for backward: it recomputes them, and takes the sum Σ p dp from y, because Σ p dp = (Σ p v) dy = y dy.

# %%
second_TK, dsecond_TK = rng.normal(size=(2, *q_TK.shape))  # queries of a second head, which shares the keys and values
q_BTHK, dy_BTHK = np.stack([q_TK, second_TK], axis=1)[None], np.stack([dy_TK, dsecond_TK], axis=1)[None]
k_BSGK, v_BSGK = k_SK[None, :, None], v_SK[None, :, None]
y_BTHK, saved = attention(q_BTHK, k_BSGK, v_BSGK, causal=True)
dq_BTHK, dk_BSGK, dv_BSGK, _ = attention_backward(dy_BTHK, saved)  # the last would be that of a bias

second = backward(dsecond_TK, second_TK, k_SK, v_SK, forward(second_TK, k_SK, v_SK)[1])
by_hand = (y_TK, gradients[0], gradients[1] + second[1], gradients[2] + second[2])  # a shared key gets both gradients
library = (y_BTHK[0, :, 0], dq_BTHK[0, :, 0], dk_BSGK[0, :, 0], dv_BSGK[0, :, 0])
for name, ours, theirs in zip(("y", "dq", "dk", "dv"), by_hand, library, strict=True):
    print(f"{name:>2}: largest difference {np.abs(theirs - ours).max():.1e}")
    assert_close(theirs, ours, length=len(words), name=name)

single = [array.astype(np.float32) for array in (q_BTHK, k_BSGK, v_BSGK)]
error = assert_close(ops.attention(*single, causal=True)[0], y_BTHK, dtype=np.float32, length=len(words), factor=8)
print(f"in float32, by {backend()['attention'].tier}: {error:.0%} of the error that rounding allows")
