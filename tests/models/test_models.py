"""The networks against torchvision's values and parameter counts, and what each objective adds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lsanet_jax import losses, models
from lsanet_jax.config import default_config
from lsanet_jax.errors import ConfigError
from lsanet_jax.models import __main__ as zoo
from lsanet_jax.models import lsa, pretrained, resnet, supervised
from tests.networks import (
    TORCHVISION_PARAMETERS,
    abstract_model,
    count,
    filled,
    filled_like,
    model_config,
)

TINY = resnet.Spec(resnet.BasicBlock, (1, 1, 1, 1))

THREE_FAMILIES = [
    "resnet18",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("vgg16", "densenet121")),
]
LARGEST = ("resnet101", "wrn101", "resnext101", "vgg19", "densenet169", "densenet201")


def logits_and_taps(model, x):
    """Of the inference network, under jit; `x` is NCHW."""
    model.eval()
    graphdef, state = nnx.split(model)

    @jax.jit
    def run(state, x):
        model = nnx.merge(graphdef, state)
        return model(x).logits[-1], model.predict(x), model.backbone(x)

    logits, predicted, maps = run(state, x.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(predicted, logits)
    return np.asarray(logits), [np.asarray(m) for m in maps]


def assert_near(found, expected, tolerance=1e-4):
    """Equal within `tolerance` of the largest value."""
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "resnext50_32x4d", "vgg16_bn", "densenet121"]
)
def test_logits_and_taps_match_torchvision(reference, name):
    ref = reference("backbones")
    expected, seed = ref["models"][name], ref["seed"]
    config = model_config(backbone=name.split("_")[0], objective="baseline")
    model = models.create_model(config, 7, (64, 64, 3), nnx.Rngs(0))
    pretrained.load_torchvision(model, filled_like(model, seed))
    x = np.random.default_rng(seed).standard_normal((2, 3, 64, 64)).astype(np.float32)
    logits, maps = logits_and_taps(model, x)
    if "logits" in expected:  # torchvision's VGG has another classifier
        assert_near(logits, expected["logits"])
        assert count(nnx.state(model, nnx.Param)) == expected["n_params"]
    else:
        assert count(nnx.state(model.backbone, nnx.Param)) == expected["n_params"]
    assert len(maps) == 4
    for tap, wanted in zip(maps, expected["taps_gap_first4"], strict=True):
        assert_near(tap.mean(axis=(1, 2))[:, :4], wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone", ["resnet101", "wrn101", "resnext101", "vgg16", "vgg19", "densenet201"]
)
def test_logits_and_taps_match_pytorch(backbone):
    torch = pytest.importorskip("torch")
    from tests import torch_zoo

    peer = torch_zoo.MAKE[backbone](7).eval()
    tensors = {
        name: torch.tensor(filled(name, tuple(t.shape), 0), dtype=torch.float32)
        for name, t in peer.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    peer.load_state_dict(tensors, strict=False)
    model = models.create_model(
        model_config(backbone=backbone, objective="baseline"), 7, (64, 64, 3), nnx.Rngs(0)
    )
    pretrained.load_torchvision(model, {k: v.numpy() for k, v in tensors.items()})
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    logits, maps = logits_and_taps(model, x)
    with torch.no_grad():
        expected, taps = peer(torch.tensor(x))
    assert_near(logits, expected.numpy())
    for tap, wanted in zip(maps, taps, strict=True):
        assert_near(tap, wanted.numpy().transpose(0, 2, 3, 1), 2e-4)


@pytest.mark.parametrize(
    "backbone",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in LARGEST else [])
        for name in models.BACKBONES
    ],
)
def test_without_its_branches_every_network_is_torchvisions(backbone):
    networks = {}
    dks = ("dks",) if not backbone.startswith("densenet") else ()
    for objective in ("baseline", "lsanet", "byot", "selfcon", *dks):
        model = abstract_model(backbone=backbone, objective=objective)
        inference = nnx.state(nnx.Dict(backbone=model.backbone, fc=model.fc), nnx.Param)
        assert count(inference) == TORCHVISION_PARAMETERS[backbone]
        variables = pretrained.inference_variables(model)
        networks[objective] = {name: v.shape for name, v in variables.items()}
        if objective == "baseline":
            assert len(jax.tree.leaves(nnx.state(model))) == len(variables)
    assert all(network == networks["baseline"] for network in networks.values())


def test_dks_is_refused_where_stages_cannot_be_copied():
    with pytest.raises(ConfigError, match="DenseNet has no make_stage.*use a residual backbone"):
        abstract_model(backbone="densenet121", objective="dks")


def test_plain_vgg_has_no_norm_and_keeps_torchvisions_places():
    model = abstract_model(backbone="vgg16", norm="none", objective="baseline")
    names = set(pretrained.inference_variables(model))
    places = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]  # torchvision's vgg16.features
    leaves = ("weight", "bias")
    assert names == {f"features.{i}.{leaf}" for i in places for leaf in leaves} | {
        f"classifier.{leaf}" for leaf in leaves
    }


def test_each_objective_adds_its_parts_only():
    parts = {
        objective: {
            path[0] for path, _ in nnx.to_flat_state(nnx.state(abstract_model(objective=objective)))
        }
        - {"backbone", "fc"}
        for objective in losses.OBJECTIVES
    }
    lsa_parts = {"auxiliary", "embeddings", "lsa"}
    assert parts == {
        "baseline": set(),
        "dsn": {"auxiliary"},
        "probe": {"auxiliary"},
        "dks": {"auxiliary"},
        "dsn_ks": {"auxiliary"},
        "dsn_lsa": lsa_parts,
        "lsanet": lsa_parts,
        "dsn_halving": {"auxiliary"},
        "dhm": {"auxiliary"},
        "ensemble_distill": {"auxiliary"},
        "byot": {"auxiliary", "embeddings"},
        "selfcon": {"projections"},
        "contrastive": {"projections"},
        "vicreg": {"auxiliary", "projections"},
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
@pytest.mark.parametrize(
    "backbone",
    ["resnet18", pytest.param("resnext50", marks=pytest.mark.slow), "vgg16", "densenet121"],
)
def test_every_input_size_is_embedded_into_the_deepest_map(backbone, stem, small_families):
    for size in (28, 32, 45, 64, 224, 255, 512):
        shape, options = (size, size, 3), {"backbone": backbone, "stem": stem}
        if size == 28 and stem == "imagenet" and backbone in ("vgg16", "densenet121"):
            smallest = {"vgg16": 32, "densenet121": 29}[backbone]
            with pytest.raises(ConfigError, match=rf"image_size = 28 .*size is {smallest}\."):
                abstract_model(image_shape=shape, **options)
            abstract_model(image_shape=(smallest, smallest, 3), objective="baseline", **options)
            continue
        model = abstract_model(image_shape=shape, **options)
        sizes = supervised.map_sizes(model.backbone, shape)
        for embedding, (height, _) in zip(model.embeddings, sizes, strict=True):
            assert embedding.patch == -(-height // sizes[-1][0])
        image = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
        outputs = nnx.eval_shape(lambda m, x: m(x), model, image)
        assert outputs.beta.shape == (2, 4)


@pytest.mark.parametrize("backbone", THREE_FAMILIES)
def test_recomputing_adds_products_to_the_program_and_changes_no_value(backbone, small_families):
    x = jax.random.normal(jax.random.key(0), (4, 32, 32, 3))
    results, products = [], []
    for remat in (False, True):
        config = model_config(backbone=backbone, remat=remat)
        model = models.create_model(config, 3, x.shape[1:], nnx.Rngs(0))
        graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)

        def loss(params, stats, x, graphdef=graphdef):
            model = nnx.merge(graphdef, params, stats, copy=True)
            logits, beta = model(x)
            return (logits**2).mean() + (beta**2).mean(), nnx.state(model, nnx.BatchStat)

        lowered = jax.jit(jax.grad(loss, has_aux=True)).lower(params, stats, x)
        program = lowered.as_text()
        products.append(program.count("stablehlo.convolution") + program.count("dot_general"))
        results.append(lowered.compile()(params, stats, x))
    for kept, recomputed in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(recomputed, kept, rtol=1e-3, atol=1e-5)
    assert products[1] > products[0]


@pytest.mark.parametrize("backbone", THREE_FAMILIES)
def test_bfloat16_is_for_feature_maps_only(backbone, small_families):
    create = lambda dtype: models.create_model(
        model_config(backbone=backbone, dtype=dtype, attention="cbam"), 3, (32, 32, 3), nnx.Rngs(0)
    )
    model, wide = create("bfloat16"), create("float32")
    x = jax.random.normal(jax.random.key(0), (4, 32, 32, 3))
    maps = nnx.eval_shape(lambda m, x: m(x), model.backbone, x.astype(jnp.bfloat16))
    assert {m.dtype for m in maps} == {jnp.dtype("bfloat16")}
    model.eval(), wide.eval()
    logits, beta = nnx.jit(lambda m, x: m(x))(model, x)
    assert logits.dtype == beta.dtype == jnp.float32
    assert {v.dtype for v in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("float32")}
    expected = nnx.jit(lambda m, x: m(x))(wide, x)
    np.testing.assert_allclose(logits, expected.logits, atol=0.05 * np.abs(expected.logits).max())
    np.testing.assert_allclose(beta, expected.beta, atol=0.01)


def test_the_zoos_table_counts_torchvisions_multiply_adds():
    for backbone, gmac in {"resnet18": "1.81", "resnext50": "4.23", "vgg16": "15.35"}.items():
        row = zoo.describe(backbone, 1000, 224)
        assert (row[0], row[3]) == (backbone, gmac)
    assert row[4] == "56x56x128  28x28x256  14x14x512  7x7x512"


def test_embedding_kernels_are_8_4_2_1_at_224_pixels():
    model = abstract_model(image_shape=(224, 224, 3))
    assert [embedding.patch for embedding in model.embeddings] == [8, 4, 2, 1]


@pytest.mark.parametrize(
    ("size", "target", "patch", "pad"),
    [((7, 7), (2, 2), 4, ((0, 1), (0, 1))), ((4, 6), (3, 3), 2, ((1, 1), (0, 0)))],
)
def test_embedding_is_convolution_norm_relu_convolution(size, target, patch, pad):
    embed = lsa.FeatureEmbedding(3, 5, map_size=size, target_size=target, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(4, *size, 3))
    padded = np.pad(x, ((0, 0), *pad, (0, 0)))
    patches = padded.reshape(4, target[0], patch, target[1], patch, 3)
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


def test_a_reduction_that_leaves_no_hidden_unit_is_named():
    with pytest.raises(ConfigError, match=r"lsa\.reduction = 65 leaves no hidden unit.*at most 64"):
        lsa.LayerSelectiveAttention(4, 16, reduction=65, rngs=nnx.Rngs(0))


def test_the_attentions_defaults_and_its_smallest_hidden_layer():
    make = lambda *arguments, **options: lsa.LayerSelectiveAttention(
        *arguments, **options, rngs=nnx.Rngs(0)
    )
    assert make(4, 16).w1.shape == (64, 8)
    assert make(4, 16, kind="conv").kernel.shape == (3,)
    assert make(2, 3, reduction=6).w1.shape == (6, 1)
    for kind in ("conv", "gated", "self"):  # They have no hidden layer.
        make(2, 3, kind=kind, reduction=7)


@pytest.mark.parametrize(
    ("kind", "beta", "expected"),
    [
        ("uniform", (), [0.25] * 4),
        ("constant", (), [0.25] * 4),
        ("frozen", (1, 2, 3, 2), [0.125, 0.25, 0.375, 0.25]),
    ],
)
def test_constant_weights_are_a_distribution_for_each_sample(kind, beta, expected):
    weights = lsa.make_lsa(4, {"kind": kind, "beta": beta, "channels": 16}, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(weights(3), [expected] * 3, rtol=1e-6)
    assert (weights.w is not None) == (kind == "constant")


@pytest.mark.parametrize("beta", [(), (0.2, 0.3, 0.5)])
def test_frozen_weights_are_one_for_each_stage(beta):
    with pytest.raises(ConfigError, match=rf"has {len(beta)} weights, expected 2"):
        lsa.ConstantWeights(2, kind="frozen", beta=beta)


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


def test_a_whole_config_is_not_its_section_model():
    with pytest.raises(ConfigError, match="without 'backbone', expected the section `model`"):
        models.create_model(default_config(), 3, (28, 28, 3), nnx.Rngs(0))


@pytest.mark.parametrize(
    ("field", "value"),
    [("stem", "tiny"), ("attention", "SE"), ("backbone", "resnet_18")],
)
def test_names_that_are_no_choice_are_refused(field, value):
    config = default_config().model
    config[field] = value
    with pytest.raises(ConfigError, match=f"config.model.{field} = '{value}', expected one of"):
        models.create_model(config, 3, (28, 28, 3), nnx.Rngs(0))
