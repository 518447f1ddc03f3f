"""Storage, low-rank and sparse products, and fake quantization against torch's own versions."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from minislm.ops.fake_quantize import fake_quantize, fake_quantize_backward
from minislm.ops.formats import format_named
from minislm.ops.quantized import quantize_activations
from minislm.testing.samples import EXPRESSIONS, sample_expression
from minislm.testing.weights import exact
from minislm.weights.dense import Dense
from minislm.weights.quantized import Quantized
from minislm.weights.sparse import Sparse

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("name", ["int2", "int3", "int4", "int6", "int8", "ternary"])
def test_rows_are_fake_quantized_as_by_torch(name, rng):
    format = format_named(name)
    w, scales = rng.normal(size=(6, 40)).astype(np.float32), rng.uniform(0.05, 0.5, (6, 1)).astype(np.float32)
    low, high = format.step_range
    expected = torch.fake_quantize_per_channel_affine(
        torch.tensor(w), torch.tensor(scales[:, 0]), torch.zeros(6, dtype=torch.int32), 0, low, high
    )
    np.testing.assert_allclose(fake_quantize(w, scales, format=format)[0], expected.numpy(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["int2", "int3", "int4-32", "int5-64", "int8", "ternary-32"])
def test_lsq_gradients_are_those_of_torch(name, rng):
    format = format_named(name)
    low, high = format.step_range
    n_inputs, groups = 96, format.n_groups(96)
    w = rng.normal(size=(5, n_inputs))
    scales = rng.uniform(0.3, 1.5, (5, groups)).astype(format.scale_dtype).astype(np.float64) / high
    scales = format.stored(scales).astype(np.float64)
    dy = rng.normal(size=w.shape)

    w_t, s_t = torch.tensor(w, requires_grad=True), torch.tensor(scales, requires_grad=True)
    sizes = [
        min(n_inputs, (j + 1) * (format.group or n_inputs)) - j * (format.group or n_inputs) for j in range(groups)
    ]
    damping = torch.tensor([1 / np.sqrt(size * high) for size in sizes])
    damped = (s_t - s_t * damping).detach() + s_t * damping
    spread = damped.repeat_interleave(torch.tensor(sizes), dim=1)
    steps = torch.clamp(w_t / spread, low, high)
    value = ((steps.round() - steps).detach() + steps) * spread
    value.backward(torch.tensor(dy))

    values, saved = fake_quantize(w, scales, format=format)
    dw, dscales = fake_quantize_backward(dy, saved)
    np.testing.assert_allclose(values, value.detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(dw, w_t.grad.numpy(), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(dscales, s_t.grad.numpy(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("dtype", "theirs"), [(np.float16, torch.float16), (ml_dtypes.bfloat16, torch.bfloat16)])
def test_sixteen_bit_products_are_those_of_widened_numbers(dtype, theirs, rng):
    w, x = rng.normal(size=(7, 33)).astype(np.float32), rng.normal(size=(4, 33)).astype(np.float32)
    expected = torch.tensor(x) @ torch.tensor(w).to(theirs).float().T
    np.testing.assert_allclose(Dense(w.astype(dtype)).apply(x), expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_compressed_rows_are_torchs(rng):
    w = np.where(rng.random((9, 31)) < 0.2, rng.normal(size=(9, 31)), 0)
    x = rng.normal(size=(5, 31))
    ours, theirs = Sparse.from_dense(w, w != 0, "csr"), torch.tensor(w).to_sparse_csr()
    assert ours.index["starts"].tolist() == theirs.crow_indices().tolist()
    assert ours.index["columns"].tolist() == theirs.col_indices().tolist()
    np.testing.assert_allclose(ours.apply(x), (theirs @ torch.tensor(x.T)).numpy().T, rtol=1e-12, atol=1e-12)


def test_activations_are_rounded_as_by_torch(rng):
    x = rng.normal(size=(6, 64)).astype(np.float32)
    codes, scales = quantize_activations(x, group=0)
    expected = torch.fake_quantize_per_channel_affine(
        torch.tensor(x), torch.tensor(scales[:, 0]), torch.zeros(6, dtype=torch.int32), 0, -127, 127
    )
    theirs = np.rint(expected.numpy() / scales).astype(int)
    assert np.abs(codes - theirs).max() <= 1  # division there, multiplication here
    assert (codes == theirs).mean() > 0.99


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_gradients_of_expressions_are_those_of_autograd(name, rng):
    weight = sample_expression(name, rng, 6, 40, np.float64).with_activations("float")
    x = rng.normal(size=(3, 40))
    x_t = torch.tensor(x, requires_grad=True)
    y_t = x_t @ torch.tensor(exact(weight)).T
    dy = rng.normal(size=y_t.shape)
    y_t.backward(torch.tensor(dy))
    np.testing.assert_allclose(weight.apply(x), y_t.detach().numpy(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(weight.apply_t(dy), x_t.grad.numpy(), rtol=1e-6, atol=1e-6)


def test_gradients_of_lora_are_those_of_autograd(rng):
    base = Quantized.nearest(rng.normal(size=(6, 40)), "int4-32")
    up, down = rng.normal(size=(6, 2)), rng.normal(size=(2, 40))
    weight = base + Dense(up) @ Dense(down)
    x, dy = rng.normal(size=(3, 40)), rng.normal(size=(3, 6))
    up_t, down_t = torch.tensor(up, requires_grad=True), torch.tensor(down, requires_grad=True)
    (torch.tensor(x) @ (torch.tensor(base.dense()) + up_t @ down_t).T).backward(torch.tensor(dy))
    gradients = weight.grads(x, dy)
    assert set(gradients) == {"b.left", "b.right"}
    np.testing.assert_allclose(gradients["b.left"], up_t.grad.numpy(), rtol=1e-10)
    np.testing.assert_allclose(gradients["b.right"], down_t.grad.numpy(), rtol=1e-10)
