"""SE, CBAM, ECA, SRM and SimAM against reference values; gradients where maps are constant."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lsanet_jax.models.attention import ATTENTION
from tests.networks import abstract_model

NAMES = [name for name in ATTENTION if name != "none"]


def set_bn(bn, rows):
    scale, bias, mean, var = (jnp.atleast_1d(row) for row in rows)
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
        module.spatial.kernel = nnx.Param(w["spatial"])
        set_bn(module.bn, w["bn"])
    if name == "eca":
        assert module.kernel.shape == w["kernel"].shape
        module.kernel = nnx.Param(w["kernel"])
    if name == "srm":
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
