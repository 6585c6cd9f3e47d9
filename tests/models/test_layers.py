import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lsanet_jax.errors import ConfigError
from lsanet_jax.models import convolution, layers
from tests.conftest import ROOT

# name: n, h, w, in, out, kernel, stride, padding, groups
CONVOLUTIONS = {
    "plain": (2, 6, 7, 3, 4, 3, 1, 1, 1),
    "strided": (2, 7, 8, 3, 4, 3, 2, 1, 1),
    "strided by 3": (2, 8, 7, 3, 4, 5, 3, 2, 1),
    "strided without padding": (2, 8, 7, 3, 4, 3, 2, 0, 1),
    "stride above the kernel": (2, 9, 8, 3, 4, 2, 3, 1, 1),
    "imagenet stem": (2, 11, 9, 3, 4, 7, 2, 3, 1),
    "even kernel": (2, 5, 5, 3, 4, 4, 3, 2, 1),
    "1x1": (2, 3, 5, 3, 4, 1, 1, 0, 1),
    "1x1 strided": (2, 5, 4, 3, 4, 1, 2, 0, 1),
    "1x1 padded": (2, 3, 3, 3, 4, 1, 1, 1, 1),
    "patches": (2, 8, 12, 3, 4, 4, 4, 0, 1),
    "patches with a remainder": (2, 11, 7, 3, 4, 3, 3, 0, 1),
    "patches padded": (2, 7, 7, 3, 4, 2, 2, 1, 1),
    "1x1 map": (2, 1, 1, 3, 4, 3, 1, 1, 1),
    "1x2 map": (2, 1, 2, 3, 4, 3, 1, 1, 1),
    "2x2 map": (2, 2, 2, 3, 4, 3, 1, 1, 1),
    "2x2 map, 5x5 kernel": (2, 2, 2, 3, 4, 5, 1, 2, 1),
    "2x2 map to 1x1": (2, 2, 2, 3, 4, 3, 2, 1, 1),
    "3x3 map": (2, 3, 3, 3, 4, 3, 1, 1, 1),
    "3x3 map to 2x2": (2, 3, 3, 3, 4, 3, 2, 1, 1),
    "4x4 map to 2x2": (2, 4, 4, 3, 4, 3, 2, 1, 1),
    "map as the kernel": (2, 3, 3, 3, 4, 3, 1, 0, 1),
    "2 groups": (2, 5, 5, 4, 6, 3, 1, 1, 2),
    "8 groups, strided": (2, 5, 4, 16, 8, 3, 2, 1, 8),
    "3 groups, 2x2 map": (2, 2, 2, 6, 3, 3, 1, 1, 3),
    "depthwise": (2, 4, 4, 6, 6, 3, 1, 1, 6),
}


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def nchw(x):
    return np.ascontiguousarray(np.moveaxis(np.asarray(x), -1, 1))


def nhwc(x):
    return np.moveaxis(x.detach().numpy(), 1, -1)


def value_and_gradients(function, *arguments, seed=1):
    """Under jit, the value and the gradients of its product with random numbers, and those."""
    shape = jax.eval_shape(function, *arguments)
    dy = jnp.asarray(np.random.default_rng(seed).normal(size=shape.shape), shape.dtype)

    @jax.jit
    def run(*arguments):
        y, pull_back = jax.vjp(function, *arguments)
        return y, *pull_back(dy)

    return *run(*arguments), dy


def arrays(*shapes, dtype=np.float64):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 2e-5)])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_and_its_gradients_equal_pytorchs(x64, name, dtype, tolerance):
    torch = pytest.importorskip("torch")
    n, h, w, c, out, k, stride, padding, groups = CONVOLUTIONS[name]
    x, kernel = arrays((n, h, w, c), (k, k, c // groups, out), dtype=dtype)
    y, dx, dkernel, dy = value_and_gradients(
        lambda x, kernel: convolution.conv2d(x, kernel, stride, padding, groups), x, kernel
    )
    assert y.dtype == dx.dtype == dkernel.dtype == dtype

    x, dy = (torch.tensor(nchw(a).astype(np.float64), requires_grad=True) for a in (x, dy))
    kernel = torch.tensor(kernel.transpose(3, 2, 0, 1).astype(np.float64), requires_grad=True)
    expected = torch.nn.functional.conv2d(x, kernel, None, stride, padding, 1, groups)
    expected.backward(dy)
    np.testing.assert_allclose(y, nhwc(expected), rtol=0, atol=tolerance * 10)
    np.testing.assert_allclose(dx, nhwc(x.grad), rtol=0, atol=tolerance * 10)
    np.testing.assert_allclose(
        dkernel, kernel.grad.numpy().transpose(2, 3, 1, 0), rtol=0, atol=tolerance * 10
    )


@pytest.mark.parametrize("name", ["plain", "1x1", "patches", "2x2 map", "8 groups, strided"])
def test_convolution_in_bfloat16_is_near_and_stays_in_bfloat16(name):
    n, h, w, c, out, k, stride, padding, groups = CONVOLUTIONS[name]
    x, kernel = arrays((n, h, w, c), (k, k, c // groups, out), dtype=np.float32)
    expected = convolution.conv2d(x, kernel, stride, padding, groups)
    y = convolution.conv2d(
        *(jnp.asarray(a, jnp.bfloat16) for a in (x, kernel)), stride, padding, groups
    )
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), expected, rtol=0.05, atol=0.2)


def test_relu_equals_jaxs_with_gradient_0_at_0_and_lets_nan_through():
    x = jnp.array([-1.0, -0.0, 0.0, 2.0, jnp.nan, -jnp.inf, jnp.inf])
    np.testing.assert_array_equal(layers.relu(x), jax.nn.relu(x))
    (gradient,) = jax.vjp(layers.relu, x)[1](jnp.full_like(x, 5))
    np.testing.assert_array_equal(gradient, [0, 0, 0, 5, 0, 0, 5])


@pytest.mark.parametrize(
    ("h", "w", "window", "stride", "padding"),
    [(6, 7, 3, 2, 1), (7, 8, 2, 2, 0), (5, 5, 3, 1, 1), (1, 1, 3, 2, 1), (9, 9, 3, 3, 0)],
)
def test_max_pool_and_its_gradient_equal_pytorchs(x64, h, w, window, stride, padding):
    torch = pytest.importorskip("torch")
    (x,) = arrays((2, h, w, 3))
    y, dx, dy = value_and_gradients(lambda x: layers.max_pool(x, window, stride, padding), x)
    x, dy = (torch.tensor(nchw(a), requires_grad=True) for a in (x, dy))
    expected = torch.nn.functional.max_pool2d(x, window, stride, padding)
    expected.backward(dy)
    np.testing.assert_array_equal(y, nhwc(expected))
    np.testing.assert_allclose(dx, nhwc(x.grad), rtol=0, atol=1e-12)


def test_max_pool_gives_the_gradient_of_ties_to_the_maxima_and_all_of_it():
    x = jnp.array([3.0, 1.0, 3.0, 3.0]).reshape(1, 2, 2, 1)
    gradient = jax.grad(lambda x: layers.max_pool(x, 2, 2).sum())(x).ravel()
    assert gradient.sum() == 1
    assert gradient[1] == 0
    assert gradient.min() >= 0


@pytest.mark.parametrize("shape", [(4, 3, 3, 5), (2, 1, 1, 5), (6, 5)])
def test_batch_norm_in_training_equals_pytorchs(x64, shape):
    torch = pytest.importorskip("torch")
    (x,) = arrays(shape)
    x = x * 3 + 100  # A mean far from 0: E[x^2] - E[x]^2 would lose digits.
    scale, bias = arrays((5,), (5,))
    graph, state = nnx.split(layers.BatchNorm(5, rngs=nnx.Rngs(0)))

    def apply(x, scale, bias):
        norm = nnx.merge(graph, state, copy=True)
        norm.scale.set_value(scale)
        norm.bias.set_value(bias)
        return norm(x)

    y, *gradients, dy = value_and_gradients(apply, x, scale, bias)
    norm = layers.BatchNorm(5, rngs=nnx.Rngs(0))
    norm(jnp.asarray(x))

    theirs = (torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d)(5).double()
    theirs.weight.data, theirs.bias.data = torch.tensor(scale), torch.tensor(bias)
    x = torch.tensor(nchw(x), requires_grad=True)
    expected = theirs(x)
    expected.backward(torch.tensor(nchw(dy)))
    np.testing.assert_allclose(y, nhwc(expected), rtol=0, atol=1e-9)
    for ours, reference in zip(
        gradients, (nhwc(x.grad), theirs.weight.grad, theirs.bias.grad), strict=True
    ):
        np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-9)
    np.testing.assert_allclose(norm.mean[...], theirs.running_mean, rtol=1e-6)
    np.testing.assert_allclose(norm.var[...], theirs.running_var, rtol=1e-6)


def test_batch_norm_after_eval_uses_the_running_statistics_and_leaves_them():
    x, mean, scale, bias = arrays((2, 3, 3, 5), (5,), (5,), (5,), dtype=np.float32)
    var = np.exp(mean)
    norm = layers.BatchNorm(5, rngs=nnx.Rngs(0))
    for variable, value in zip(
        (norm.mean, norm.var, norm.scale, norm.bias), (mean, var, scale, bias), strict=True
    ):
        variable.set_value(jnp.asarray(value))
    norm.eval()
    expected = (x - mean) / np.sqrt(var + 1e-5) * scale + bias
    np.testing.assert_allclose(norm(x), expected, atol=1e-5)
    np.testing.assert_array_equal(norm.mean[...], mean)
    norm.train()
    norm(x)
    assert not np.array_equal(norm.mean[...], mean)


def test_batch_norm_of_a_single_value_is_refused():
    norm = layers.BatchNorm(2, rngs=nnx.Rngs(0))
    assert norm(jnp.ones((1, 2, 1, 2))).shape == (1, 2, 1, 2)
    with pytest.raises(ConfigError, match=r"config\.train\.batch_size = 1 and a map of one pixel"):
        norm(jnp.ones((1, 1, 1, 2)))
    norm.eval()
    assert np.isfinite(norm(jnp.ones((1, 1, 1, 2)))).all()


def test_batch_norm_in_bfloat16_keeps_its_statistics_in_float32():
    (x,) = arrays((64, 4, 4, 5), dtype=np.float32)
    x = jnp.asarray(x + 20, jnp.bfloat16)
    norm = layers.BatchNorm(5, rngs=nnx.Rngs(0))
    y = norm(x)
    assert y.dtype == jnp.bfloat16
    assert norm.mean[...].dtype == norm.var[...].dtype == jnp.float32
    exact = np.asarray(x, np.float64).mean((0, 1, 2))
    np.testing.assert_allclose(norm.mean[...], 0.1 * exact, rtol=1e-5)


def test_layers_under_jit_over_a_mesh_equal_those_on_one_device():
    command = [sys.executable, "-m", "tests.models.test_layers"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shape", [(7, 7, 3, 64), (3, 3, 5, 32), (1, 1, 97, 3), (3, 3, 700, 800)])
def test_initialisers_draw_what_jax_draws_for_the_shape(shape):
    key, size = jax.random.key(5), shape[0] * shape[1]
    fans = {layers.he_normal_fan_in: size * shape[2], layers.he_normal_fan_out: size * shape[3]}
    for initialise, fan in fans.items():
        normal = np.asarray(jax.random.normal(key, shape))
        expected = normal * np.sqrt(np.float32(2 / fan))
        np.testing.assert_array_equal(initialise(key, shape), expected)
        traced = jax.jit(initialise, static_argnums=1)(key, shape)
        np.testing.assert_allclose(traced, expected, rtol=1e-5)
    expected = jax.random.uniform(
        key, shape[2:], jnp.float32, -(shape[2] ** -0.5), shape[2] ** -0.5
    )
    np.testing.assert_array_equal(layers.uniform_fan_in(key, shape[2:]), expected)


def test_initialisers_have_torchvisions_spread():
    conv = layers.Conv(64, 128, 3, rngs=nnx.Rngs(0))
    assert abs(float(conv.kernel[...].std()) / np.sqrt(2 / (9 * 128)) - 1) < 0.02
    linear = layers.Linear(400, 100, rngs=nnx.Rngs(0))
    assert 0.049 < float(jnp.abs(linear.kernel[...]).max()) <= 0.05
    assert 0.04 < float(jnp.abs(linear.bias[...]).max()) <= 0.05


def compare_over_a_mesh():
    devices = jax.devices()
    mesh = Mesh(devices, ("data",))
    (x,) = arrays((4 * len(devices), 4, 4, 8), dtype=np.float32)
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        layers.Conv(8, 8, 3, stride=2, rngs=rngs),
        layers.BatchNorm(8, rngs=rngs),
        layers.Conv(8, 8, 3, groups=4, rngs=rngs),
    )
    graph, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)

    @jax.jit
    def loss(params, x):
        module = nnx.merge(graph, params, stats, copy=True)
        return jnp.square(module(x)).mean(), nnx.state(module, nnx.BatchStat)

    value = jax.value_and_grad(loss, has_aux=True)
    alone = value(params, jnp.asarray(x))
    spread = value(params, jax.device_put(x, NamedSharding(mesh, P("data"))))
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(spread), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


if __name__ == "__main__":  # a process of its own, for it needs four devices
    jax.config.update("jax_num_cpu_devices", 4)
    assert len(jax.devices()) == 4
    compare_over_a_mesh()
