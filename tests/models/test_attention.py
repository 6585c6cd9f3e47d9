"""SE, CBAM, ECA, SRM and SimAM against reference values; gradients where maps are constant."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lsanet_jax.models.attention import ATTENTION, convolve_channels
from tests.networks import abstract_model

NAMES = [name for name in ATTENTION if name != "none"]


def set_bn(bn, rows):
    scale, bias, mean, var = (jnp.atleast_1d(row) for row in rows)
    assert bn.scale.shape == scale.shape
    bn.scale, bn.bias = nnx.Param(scale), nnx.Param(bias)
    bn.mean, bn.var = nnx.BatchStat(mean), nnx.BatchStat(var)


def reference_module(name, ref):
    """The module with the reference's weights, in evaluation mode."""
    module = ATTENTION[name](32, rngs=nnx.Rngs(0))
    w = {k.removeprefix(f"w.{name}."): jnp.asarray(v) for k, v in ref.items()}
    if name in ("se", "cbam"):
        for layer, i in ((module.mlp.fc1, 1), (module.mlp.fc2, 2)):
            assert layer.kernel.shape == w[f"w{i}"].shape
            layer.kernel = nnx.Param(w[f"w{i}"])
            layer.bias = nnx.Param(w[f"b{i}"])
    if name == "cbam":
        assert module.spatial.kernel.shape == w["spatial"].shape
        module.spatial.kernel = nnx.Param(w["spatial"])
        set_bn(module.bn, w["bn"])
    if name == "eca":
        assert module.kernel.shape == w["kernel"].shape
        module.kernel = nnx.Param(w["kernel"])
    if name == "srm":
        assert module.cfc.shape == w["cfc"].shape
        module.cfc = nnx.Param(w["cfc"])
        set_bn(module.bn, w["bn"])
    module.eval()
    return module


@pytest.mark.parametrize("x64", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize("name", NAMES)
def test_output_matches_reference(reference, name, x64):
    ref = reference("attention")
    with jax.enable_x64(x64):
        x = jnp.asarray(ref["x"], jnp.float64 if x64 else jnp.float32)
        y = reference_module(name, ref)(x)
    assert y.dtype == x.dtype
    expected, rtol = ref[f"y.{name}"], 1e-6 if x64 else 1e-5
    np.testing.assert_allclose(y, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


@pytest.mark.parametrize(
    ("channels", "size"), [(4, 1), (16, 3), (64, 3), (127, 3), (128, 5), (512, 5), (2048, 7)]
)
def test_the_kernel_of_eca_grows_with_the_channels(channels, size):
    # |log2(C) / 2 + 1 / 2|, the nearest odd number: equation 12 of "ECA-Net".
    module = ATTENTION["eca"](channels, rngs=nnx.Rngs(0))
    assert module.kernel.shape == (size,)


@pytest.mark.parametrize("name", ["se", "cbam"])
@pytest.mark.parametrize(("channels", "hidden"), [(8, 1), (31, 1), (32, 2), (48, 3)])
def test_the_bottleneck_has_a_16th_of_the_channels_and_one_at_least(name, channels, hidden):
    module = ATTENTION[name](channels, rngs=nnx.Rngs(0))
    assert module.mlp.fc1.kernel.shape == (channels, hidden)


@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_a_convolution_over_the_channels_is_numpys(size):
    rng = np.random.default_rng(0)
    u, kernel = rng.normal(size=(2, 9)), rng.normal(size=size)
    expected = [np.correlate(row, kernel, "same") for row in u]
    found = convolve_channels(jnp.asarray(u), jnp.asarray(kernel))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_srm_takes_a_constant_channel_to_have_no_deviation():
    module = ATTENTION["srm"](2, rngs=nnx.Rngs(0))
    module.cfc = nnx.Param(jnp.ones((2, 2)))
    module.eval()
    x = np.stack([np.full((3, 5), 0.5), np.arange(15).reshape(3, 5) / 10], axis=-1)[None]
    style = np.array([0.5, x[..., 1].mean() + x[..., 1].std()])
    found = module(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, x / (1 + np.exp(-style / np.sqrt(1 + 1e-5))), rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 2), (2, 3), (1, 1)])
def test_simam_is_its_formula_on_maps_of_few_pixels(shape):
    x = np.random.default_rng(0).normal(size=(2, *shape, 3))
    square = (x - x.mean((1, 2), keepdims=True)) ** 2
    variance = square.sum((1, 2), keepdims=True) / max(np.prod(shape) - 1, 1)
    expected = x / (1 + np.exp(-(square / (4 * (variance + 1e-4)) + 0.5)))
    found = ATTENTION["simam"](3, rngs=nnx.Rngs(0))(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 4, 4, 32), (2, 1, 1, 32)])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_on_constant_maps(name, shape):
    module = ATTENTION[name](32, rngs=nnx.Rngs(0))
    graphdef, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)

    @jax.jit
    def grads(params, x):
        run = lambda p, x: nnx.merge(graphdef, p, stats, copy=True)(x)
        return jax.grad(lambda p, x: jnp.sum(run(p, x) ** 2), argnums=(0, 1))(params, x)

    for value in (0.0, 1.0):
        for leaf in jax.tree.leaves(grads(params, jnp.full(shape, value))):
            assert np.isfinite(leaf).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_block_has_its_module(name, small_families):
    """In a residual block, before each pooling of VGG, behind each dense layer of DenseNet."""
    places = {
        "resnet18": [f"layer{i}.0" for i in (1, 2, 3, 4)],
        "resnext50": [f"layer{i}.0" for i in (1, 2, 3, 4)],
        "vgg16": [f"features.{i}" for i in (3, 7, 14, 18, 22)],
        "densenet121": [
            f"features.denseblock{i}.denselayer{j}"
            for i, size in enumerate((2, 1, 1, 2), start=1)
            for j in range(1, size + 1)
        ],
    }
    for backbone, expected in places.items():
        model = abstract_model(backbone=backbone, attention=name, objective="baseline")
        found = {
            ".".join(map(str, path)): module
            for path, module in nnx.iter_modules(model.backbone)
            if path and path[-1] == "attention"
        }
        assert found.keys() == {f"{place}.attention" for place in expected}
        assert all(type(module) is ATTENTION[name] for module in found.values())
        maps = nnx.eval_shape(lambda m, x: m(x), model.backbone, jnp.ones((2, 32, 32, 3)))
        assert [m.shape[-1] for m in maps] == list(model.backbone.stage_channels)
