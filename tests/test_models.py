"""The networks against torchvision's values and parameter counts, and what each objective adds."""

import json
import zlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from flax import nnx

from configs import common
from lsanet_jax import models
from lsanet_jax.errors import ConfigError, DataError
from lsanet_jax.models import lsa, pretrained, resnet, supervised

# At 7 classes, as torchvision has them.
TORCHVISION_PARAMETERS = {
    "resnet18": 11180103,
    "resnet34": 21288263,
    "resnet50": 23522375,
    "resnet101": 42514503,
    "wrn50": 66848583,
    "wrn101": 124852039,
    "resnext50": 22994247,
    "resnext101": 86756679,
}
TINY = resnet.Spec(resnet.BasicBlock, (1, 1, 1, 1))


def model_config(**overrides) -> ml_collections.ConfigDict:
    config = common.get_config().model
    config.update(overrides)
    return config


def abstract_model(num_classes=7, image_shape=(64, 64, 3), **overrides):
    config = model_config(**overrides)
    return nnx.eval_shape(
        lambda: models.create_model(config, num_classes, image_shape, nnx.Rngs(0))
    )


def count(variables) -> int:
    return sum(v.size for v in jax.tree.leaves(variables))


def filled(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """A tensor in torch's layout, filled as ../shared/reference/README.md says."""
    rng = np.random.default_rng(zlib.crc32(f"{seed}:{name}".encode()))
    if name.endswith("running_mean"):
        return rng.normal(0, 0.1, shape)
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape)
    if len(shape) == 1 and name.endswith("weight"):
        return rng.uniform(0.3, 0.6, shape)
    if len(shape) == 1:
        return rng.normal(0, 0.1, shape)
    return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)


def torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return {4: lambda s: (s[3], s[2], s[0], s[1]), 2: lambda s: s[::-1]}.get(len(shape), tuple)(
        tuple(shape)
    )


def filled_like(model, seed: int) -> dict[str, np.ndarray]:
    variables = pretrained.inference_variables(model)
    return {n: filled(n, torch_shape(v.shape), seed) for n, v in variables.items()}


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_logits_and_taps_match_torchvision(shared, name):
    ref = json.loads((shared / "reference/backbones.json").read_text())
    expected, seed = ref["models"][name], ref["seed"]
    config = model_config(backbone=name.removesuffix("_32x4d"), objective="baseline")
    model = models.create_model(config, 7, (64, 64, 3), nnx.Rngs(0))
    pretrained.load_torchvision(model, filled_like(model, seed))
    model.eval()
    x = np.random.default_rng(seed).standard_normal((2, 3, 64, 64)).astype(np.float32)

    @jax.jit
    def run(state, x):
        model_ = nnx.merge(graphdef, state)
        return model_(x).logits[-1], model_.predict(x), model_.backbone(x)

    graphdef, state = nnx.split(model)
    logits, predicted, maps = run(state, x.transpose(0, 2, 3, 1))
    scale = np.abs(expected["logits"]).max()
    np.testing.assert_allclose(logits, expected["logits"], rtol=1e-4, atol=1e-4 * scale)
    np.testing.assert_array_equal(predicted, logits)
    assert len(maps) == 4
    for tap, wanted in zip(maps, expected["taps_gap_first4"], strict=True):
        found = tap.mean(axis=(1, 2))[:, :4]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("backbone", models.BACKBONES)
def test_without_its_branches_every_network_is_torchvisions(backbone):
    networks = {}
    for objective in ("baseline", "dks", "lsanet"):
        model = abstract_model(backbone=backbone, objective=objective)
        inference = nnx.state(nnx.Dict(backbone=model.backbone, fc=model.fc), nnx.Param)
        assert count(inference) == TORCHVISION_PARAMETERS[backbone]
        variables = pretrained.inference_variables(model)
        networks[objective] = {name: v.shape for name, v in variables.items()}
        if objective == "baseline":
            assert len(jax.tree.leaves(nnx.state(model))) == len(variables)
    assert networks["dks"] == networks["lsanet"] == networks["baseline"]


def test_each_objective_adds_its_parts_only():
    parts = {
        objective: {
            path[0] for path, _ in nnx.to_flat_state(nnx.state(abstract_model(objective=objective)))
        }
        - {"backbone", "fc"}
        for objective in ("baseline", "dsn", "dks", "dsn_ks", "dsn_lsa", "lsanet")
    }
    lsa_parts = {"auxiliary", "embeddings", "lsa"}
    assert parts == {
        "baseline": set(),
        "dsn": {"auxiliary"},
        "dks": {"auxiliary"},
        "dsn_ks": {"auxiliary"},
        "dsn_lsa": lsa_parts,
        "lsanet": lsa_parts,
    }


def test_dks_branches_copy_the_following_stages():
    model = abstract_model(backbone="resnet34", objective="dks")
    assert model.taps == (2, 3, 4)
    at_conv3, at_conv4 = model.auxiliary
    assert [len(stage) for stage in at_conv3.stages] == [6, 1]  # Conv4_x, half of Conv5_x
    assert [len(stage) for stage in at_conv4.stages] == [3]  # Conv5_x
    stage4 = count(nnx.state(nnx.Dict(x=model.backbone.layer4), nnx.Param))
    assert count(nnx.state(nnx.Dict(x=at_conv4.stages[0]), nnx.Param)) == stage4


def test_dks_network_returns_three_classifiers():
    model = supervised.DeeplySupervised(
        resnet.ResNet(TINY, rngs=nnx.Rngs(0)), 5, taps=(2, 3, 4), dks=True, rngs=nnx.Rngs(1)
    )
    outputs = nnx.eval_shape(lambda m, x: m(x), model, jnp.ones((2, 32, 32, 3)))
    assert outputs.logits.shape == (3, 2, 5)
    assert outputs.beta is None


@pytest.mark.parametrize("taps", [(1, 4), (2, 4), (3, 4), (1, 2, 4), (2, 3, 4), (1, 2, 3, 4)])
def test_tap_subsets(taps):
    model = abstract_model(objective="lsanet", taps=taps)
    outputs = nnx.eval_shape(lambda m, x: m(x), model, jnp.ones((2, 64, 64, 3)))
    assert outputs.logits.shape == (len(taps), 2, 7)
    assert outputs.beta.shape == (2, len(taps))
    assert len(model.auxiliary) == len(taps) - 1
    assert len(model.embeddings) == len(taps)


@pytest.mark.parametrize("taps", [(1, 2, 3), (4, 5), (0, 4)])
def test_taps_outside_the_backbone_are_refused(taps):
    with pytest.raises(ConfigError, match=r"model\.taps .*the last one, 4, must be among them"):
        abstract_model(objective="lsanet", taps=taps)


@pytest.mark.parametrize("stem", ["imagenet", "small"])
@pytest.mark.parametrize("size", [28, 45, 64, 224, 255, 512])
def test_every_input_size_is_embedded_into_the_deepest_map(size, stem):
    model = abstract_model(image_shape=(size, size, 3), objective="lsanet", stem=stem)
    maps = supervised.map_shapes(model.backbone, (size, size, 3))
    for embedding, tapped in zip(model.embeddings, maps, strict=True):
        assert embedding.patch == -(-tapped.shape[1] // maps[-1].shape[1])
    image = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    outputs = nnx.eval_shape(lambda m, x: m(x), model, image)
    assert outputs.beta.shape == (2, 4)


def test_embedding_kernels_are_8_4_2_1_at_224_pixels():
    model = abstract_model(image_shape=(224, 224, 3))
    assert [embedding.patch for embedding in model.embeddings] == [8, 4, 2, 1]


def test_embedding_is_convolution_norm_relu_convolution():
    embed = lsa.FeatureEmbedding(3, 5, map_size=(7, 7), target_size=(2, 2), rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(4, 7, 7, 3))
    padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    patches = padded.reshape(4, 2, 4, 2, 4, 3)
    y = np.einsum("nhiwjc,ijcd->nhwd", patches, embed.conv.kernel[...])
    y = (y - y.mean((0, 1, 2))) / np.sqrt(y.var((0, 1, 2)) + 1e-5)
    expected = np.maximum(y, 0) @ embed.project.kernel[0, 0] + embed.project.bias[...]
    np.testing.assert_allclose(embed(jnp.asarray(x, jnp.float32)), expected, rtol=1e-4, atol=1e-5)


LSA_VARIANTS = {
    **{f"fc{r}": ("fc", {"reduction": r}) for r in (4, 8, 16)},
    **{f"conv{k}": ("conv", {"kernel_size": k}) for k in (3, 5, 7)},
    "gated": ("gated", {}),
    "self": ("self", {}),
}


@pytest.mark.parametrize("x64", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize("variant", list(LSA_VARIANTS))
def test_beta_matches_reference(reference, variant, x64):
    ref = reference("lsa")
    kind, arguments = LSA_VARIANTS[variant]
    with jax.enable_x64(x64):
        attention = lsa.LayerSelectiveAttention(4, 16, kind=kind, **arguments, rngs=nnx.Rngs(0))
        for name in [n for n in ref if n.startswith(f"w.{variant}.")]:
            parameter = getattr(attention, name.split(".")[-1])
            assert parameter.shape == ref[name].shape
            setattr(attention, name.split(".")[-1], nnx.Param(jnp.asarray(ref[name])))
        beta = attention(jnp.asarray(ref["embedded"], jnp.float64 if x64 else jnp.float32))
    np.testing.assert_allclose(beta, ref[f"beta.{variant}"], rtol=1e-6 if x64 else 1e-5)
    np.testing.assert_allclose(np.asarray(beta).sum(axis=1), 1, rtol=1e-6)


def test_betas_gradient_reaches_embedding_and_backbone():
    model = supervised.DeeplySupervised(
        resnet.ResNet(TINY, rngs=nnx.Rngs(0)),
        3,
        lsa={"channels": 8, "kind": "fc", "reduction": 8, "kernel_size": 3},
        image_shape=(32, 32, 3),
        rngs=nnx.Rngs(1),
    )
    x = jax.random.normal(jax.random.key(0), (4, 32, 32, 3))
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)

    @jax.jit
    def first_weight(params):
        return nnx.merge(graphdef, params, stats, copy=True)(x).beta[:, 0].mean()

    grads = jax.grad(first_weight)(params)
    size = {path: float(jnp.abs(g[...]).max()) for path, g in nnx.to_flat_state(grads)}
    assert size[("lsa", "w1")] > 0
    assert size[("embeddings", 0, "conv", "kernel")] > 0
    assert size[("backbone", "conv1", "kernel")] > 0
    assert size[("fc", "kernel")] == 0


def test_names_are_torchvisions():
    names = set(pretrained.inference_variables(abstract_model()))
    assert {
        "conv1.weight",
        "bn1.running_var",
        "layer1.0.conv1.weight",
        "layer2.0.downsample.0.weight",
        "layer2.0.downsample.1.bias",
        "layer4.1.bn2.weight",
        "fc.weight",
        "fc.bias",
    } <= names
    assert len(names) == 102  # torchvision's 122 without the 20 num_batches_tracked


def test_weights_that_do_not_fit_are_named():
    model = models.create_model(model_config(objective="baseline"), 7, (32, 32, 3), nnx.Rngs(0))
    tensors = filled_like(model, 0)
    with pytest.raises(DataError, match="fc.bias"):
        pretrained.load_torchvision(model, {k: v for k, v in tensors.items() if k != "fc.bias"})
    with pytest.raises(DataError, match=r"fc.bias has shape \(8,\).*expected \(7,\)"):
        pretrained.load_torchvision(model, tensors | {"fc.bias": np.zeros(8)})


def test_initialisation_is_torchvisions():
    model = models.create_model(model_config(objective="baseline"), 7, (32, 32, 3), nnx.Rngs(0))
    kernel = model.backbone.layer3[0].conv1.kernel[...]
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 256)), rtol=0.01)
    bound = 1 / np.sqrt(512)
    assert 0.98 * bound < float(jnp.abs(model.fc.kernel[...]).max()) <= bound
    assert float(jnp.abs(model.fc.bias[...]).max()) <= bound
    assert (model.backbone.bn1.scale[...] == 1).all()


def test_a_backbone_of_ones_own_is_supervised():
    class TwoStages(nnx.Module):
        stage_channels = (8, 16)

        def __init__(self, rngs):
            self.first = nnx.Conv(3, 8, (3, 3), strides=2, rngs=rngs)
            self.second = nnx.Conv(8, 16, (3, 3), strides=3, rngs=rngs)

        def __call__(self, x):
            x = jax.nn.relu(self.first(x))
            return x, jax.nn.relu(self.second(x))

    backbone = TwoStages(nnx.Rngs(0))
    lsa_arguments = {"channels": 8, "kind": "fc", "reduction": 2}
    model = supervised.DeeplySupervised(
        backbone, 3, lsa=lsa_arguments, image_shape=(32, 32, 3), rngs=nnx.Rngs(1)
    )
    outputs = nnx.jit(lambda m, x: m(x))(model, jnp.ones((2, 32, 32, 3)))
    assert outputs.logits.shape == (2, 2, 3)
    assert outputs.beta.shape == (2, 2)
    with pytest.raises(ConfigError, match="TwoStages has no make_stage"):
        supervised.DeeplySupervised(backbone, 3, dks=True, rngs=nnx.Rngs(1))
