"""The objectives against the reference values, independent formulas and finite differences."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lsanet_jax import losses
from lsanet_jax.errors import ConfigError

REFERENCE_OBJECTIVES = ["baseline", "dsn", "dsn_ks", "dsn_lsa", "lsanet"]


@pytest.fixture(params=["float64", "float32"])
def precision(request):
    """Run at both precisions; yields (dtype, relative tolerance)."""
    with jax.enable_x64(request.param == "float64"):
        yield jnp.dtype(request.param), {"float64": 1e-6, "float32": 1e-5}[request.param]


def close(actual, expected, rtol):
    expected = np.asarray(expected)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


@pytest.mark.parametrize("name", REFERENCE_OBJECTIVES)
def test_objectives_and_gradients_match_reference(reference, precision, name):
    dtype, rtol = precision
    ref = reference("losses")
    logits, beta = jnp.asarray(ref["logits"], dtype), jnp.asarray(ref["beta"], dtype)
    labels = jnp.asarray(ref["labels"], jnp.int32)
    loss = lambda x: losses.Objective(name)(x, labels, beta)[0]
    value, grad = jax.value_and_grad(loss)(logits)
    assert value.dtype == dtype
    close(value, ref[f"value.{name}"], rtol)
    close(grad, ref[f"grad.{name}"], rtol)


def test_parts_and_gradients_match_reference(reference, precision):
    dtype, rtol = precision
    ref = reference("losses")
    logits, beta = jnp.asarray(ref["logits"], dtype), jnp.asarray(ref["beta"], dtype)
    labels = jnp.asarray(ref["labels"], jnp.int32)
    ce = lambda x: losses.cross_entropy(x, labels, multilabel=False)
    parts = {
        "final": lambda x: losses.final(ce(x)),
        "aux": lambda x: losses.auxiliary(ce(x)),
        "weighted": lambda x: losses.weighted(ce(x), beta),
        "synergy": losses.synergy,
    }
    for name, part in parts.items():
        value, grad = jax.value_and_grad(part)(logits)
        close(value, ref[f"value.{name}"], rtol)
        close(grad, ref[f"grad.{name}"], rtol)


def test_multilabel_matches_reference(reference, precision):
    dtype, rtol = precision
    ref = reference("losses")
    logits, beta = jnp.asarray(ref["logits"], dtype), jnp.asarray(ref["beta"], dtype)
    labels = jnp.asarray(ref["multilabel.labels"])
    close(losses.synergy(logits, multilabel=True), ref["multilabel.value.synergy"], rtol)
    loss = lambda x: losses.Objective("lsanet", multilabel=True)(x, labels, beta)[0]
    value, grad = jax.value_and_grad(loss)(logits)
    close(value, ref["multilabel.value.lsanet"], rtol)
    close(grad, ref["multilabel.grad.lsanet"], rtol)


def example(num_classifiers=4, batch=5, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_classifiers, batch, classes))
    beta = rng.dirichlet(np.ones(num_classifiers), size=batch)
    return logits, rng.integers(classes, size=batch), beta


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("name", [*REFERENCE_OBJECTIVES, "dsn_halving"])
def test_gradient_equals_finite_differences(name, multilabel):
    logits, labels, beta = example()
    if multilabel:
        labels = np.random.default_rng(1).integers(2, size=(5, 3))
    with jax.enable_x64(True):
        fn = jax.jit(
            lambda x, b: losses.Objective(name, multilabel=multilabel)(x, jnp.asarray(labels), b)[0]
        )
        logits, beta = jnp.asarray(logits), jnp.asarray(beta)
        grads = jax.grad(fn, argnums=(0, 1))(logits, beta)
        rng = np.random.default_rng(2)
        for argument, grad in enumerate(grads):
            direction = jnp.asarray(rng.normal(size=grad.shape))
            shifted = lambda eps, k=argument, d=direction: fn(
                *[a + eps * d if i == k else a for i, a in enumerate((logits, beta))]
            )
            numeric = (shifted(1e-6) - shifted(-1e-6)) / 2e-6
            np.testing.assert_allclose(jnp.vdot(grad, direction), numeric, rtol=1e-6, atol=1e-8)


def test_synergy_is_the_sum_of_pairwise_divergences():
    logits, _, _ = example()
    mu = np.random.default_rng(3).uniform(size=(4, 4))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = sum(
        mu[i, j] * np.mean(np.sum(p[i] * np.log(p[i] / p[j]), axis=-1))
        for i in range(4)
        for j in range(4)
        if i != j
    )
    np.testing.assert_allclose(losses.synergy(jnp.asarray(logits), mu), expected, rtol=1e-5)


def test_synergy_draws_classifiers_together():
    logits = jnp.asarray(example()[0], jnp.float32)
    step = logits - 0.5 * jax.grad(losses.synergy)(logits)
    assert losses.synergy(step) < losses.synergy(logits)
    assert losses.synergy(jnp.stack([logits[0]] * 4)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("multilabel", [False, True])
def test_confident_logits_stay_finite(multilabel):
    logits = jnp.asarray([[[1e4, -1e4]], [[-1e4, 1e4]]], jnp.float32)
    labels = jnp.asarray([[1, 0]]) if multilabel else jnp.asarray([0])
    loss = lambda x: losses.Objective("dsn_ks", multilabel=multilabel)(x, labels)[0]
    value, grad = jax.value_and_grad(loss)(logits)
    assert np.isfinite(value)
    assert np.isfinite(grad).all()


def test_beta_receives_a_gradient():
    logits, labels, beta = example()
    loss = lambda b: losses.Objective("lsanet")(jnp.asarray(logits), jnp.asarray(labels), b)[0]
    grad = jax.grad(loss)(jnp.asarray(beta))
    ce = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(labels), multilabel=False)
    np.testing.assert_allclose(grad, ce.T / 5, rtol=1e-5)


def test_alpha_weights_the_auxiliary_classifiers():
    logits, labels, _ = map(jnp.asarray, example())
    ce = losses.cross_entropy(logits, labels, multilabel=False)
    expected = 0.1 * ce[0].mean() + 0.2 * ce[1].mean() + 0.3 * ce[2].mean()
    alpha = jnp.asarray([0.1, 0.2, 0.3])
    np.testing.assert_allclose(losses.auxiliary(ce, alpha), expected, rtol=1e-6)
    _, parts = losses.Objective("dsn", alpha=alpha)(logits, labels)
    np.testing.assert_allclose(parts["auxiliary"], expected, rtol=1e-6)


def test_a_single_classifier_is_the_baseline_under_every_objective():
    logits, labels, _ = map(jnp.asarray, example(num_classifiers=1))
    beta = jnp.ones((5, 1))
    features = jnp.ones((1, 5, 2, 2, 3))
    contrasts = ("selfcon", "contrastive", "vicreg")  # they compare stages that have no classifier
    values = [
        losses.Objective(name)(logits, labels, beta, features)[0]
        for name in losses.OBJECTIVES
        if name not in contrasts
    ]
    np.testing.assert_allclose(values, values[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "needed"), [("lsanet", "beta"), ("byot", "features"), ("selfcon", "features")]
)
def test_objectives_ask_for_what_they_need(name, needed):
    logits, labels, _ = map(jnp.asarray, example())
    with pytest.raises(ValueError, match=f"{name}.*{needed} is None"):
        losses.Objective(name)(logits, labels)


def test_soft_labels_that_are_hard_give_the_same_cross_entropy(reference):
    ref = reference("losses")
    logits, labels = jnp.asarray(ref["logits"]), jnp.asarray(ref["labels"])
    soft = jax.nn.one_hot(labels, logits.shape[-1])
    hard = losses.cross_entropy(logits, labels, multilabel=False)
    np.testing.assert_allclose(losses.cross_entropy(logits, soft, multilabel=False), hard, 1e-6)
    other = jnp.roll(labels, 1)
    mixed = 0.3 * soft + 0.7 * jnp.roll(soft, 1, axis=0)
    expected = 0.3 * hard + 0.7 * losses.cross_entropy(logits, other, multilabel=False)
    found = losses.cross_entropy(logits, mixed, multilabel=False)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


EMPHASES = {
    "weights": losses.Emphasis(class_weights=(0.5, 1.0, 3.0)),
    "smoothing": losses.Emphasis(label_smoothing=0.1),
    "both": losses.Emphasis(class_weights=(0.5, 1.0, 3.0), label_smoothing=0.2),
    "focal": losses.Emphasis(focal_gamma=2.0),
    "focal, weights": losses.Emphasis(focal_gamma=0.5, class_weights=(0.5, 1.0, 3.0)),
    "offsets": losses.Emphasis(offsets=(-0.1, -1.0, -3.0)),
}


def torchs_cross_entropy(logits, labels, multilabel, emphasis):
    """PyTorch's losses of one classifier, [b]; focal terms as torchvision's are defined."""
    import torch
    from torch.nn import functional

    options = {"reduction": "none"}
    if emphasis.offsets:
        logits = logits + torch.tensor(emphasis.offsets, dtype=logits.dtype)
    weights = torch.tensor(emphasis.class_weights or (1.0,) * 3, dtype=logits.dtype)
    gamma, smoothing = emphasis.focal_gamma, emphasis.label_smoothing
    if multilabel:
        labels = labels * (1 - smoothing) + smoothing / 2
        entropy = functional.binary_cross_entropy_with_logits
        ce = entropy(logits, labels, pos_weight=weights, **options)
        p = torch.sigmoid(logits)
        return (ce * (1 - (p * labels + (1 - p) * (1 - labels))) ** gamma).mean(-1)
    ce = functional.cross_entropy(
        logits, labels, weight=weights, label_smoothing=smoothing, **options
    )
    p = torch.softmax(logits, -1)[torch.arange(len(labels)), labels]
    return ce * (1 - p) ** gamma


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("name", EMPHASES)
def test_an_emphasis_and_its_gradient_are_pytorchs(name, multilabel):
    torch = pytest.importorskip("torch")
    logits, labels, _ = example()
    if multilabel:
        labels = np.random.default_rng(1).integers(2, size=(5, 3)).astype(float)
    theirs = torch.tensor(logits, requires_grad=True)
    peer = [
        torchs_cross_entropy(x, torch.tensor(labels), multilabel, EMPHASES[name]) for x in theirs
    ]
    torch.stack(peer).sum().backward()
    with jax.enable_x64(True):
        objective = losses.Objective("dsn", multilabel=multilabel, emphasis=EMPHASES[name])
        ours, ce = jax.grad(
            lambda x: (objective(x, jnp.asarray(labels))[0], objective(x, jnp.asarray(labels))[1]),
            has_aux=True,
        )(jnp.asarray(logits))
    expected = torch.stack(peer).detach().numpy().mean(axis=1)
    np.testing.assert_allclose(ce["ce"], expected, rtol=1e-9)
    np.testing.assert_allclose(ours, theirs.grad.numpy() / 5, rtol=1e-8, atol=1e-12)


def test_logit_adjustment_is_the_formula_of_its_paper():
    # Menon et al., Eq. 10: log(1 + sum_{y' != y} (pi_y' / pi_y)^tau exp(f_y' - f_y)).
    (logits, *_), labels, _ = example()
    prior, tau = np.array([0.7, 0.2, 0.1]), 1.5
    expected = [
        np.log(sum((prior / prior[y]) ** tau * np.exp(f - f[y])))
        for f, y in zip(logits, labels, strict=True)
    ]
    emphasis = losses.Emphasis(offsets=tuple(tau * np.log(prior)))
    found = losses.cross_entropy(
        jnp.asarray(logits)[None], jnp.asarray(labels), multilabel=False, emphasis=emphasis
    )
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)


def test_an_image_without_a_label_has_no_loss_and_no_gradient():
    emphasis = losses.Emphasis((-0.1, -1.0, -3.0), (0.5, 1.0, 3.0), 2.0, 0.2)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(logits, labels):
        ce = losses.cross_entropy(logits, labels, multilabel=False, emphasis=emphasis)
        return ce.sum(), ce

    logits = jnp.asarray(example()[0])
    labels = np.array([2, -1, 0, 1, -1])
    (_, found), gradient = loss(logits, labels)
    (_, known), _ = loss(logits, np.where(labels < 0, 1, labels))
    np.testing.assert_array_equal(found, np.where(labels < 0, 0, known))
    assert (np.asarray(gradient)[:, labels < 0] == 0).all()


def test_by_default_classes_and_samples_weigh_alike():
    assert losses.Emphasis() == ((), (), 0, 0)


@pytest.mark.parametrize("multilabel", [False, True])
def test_a_focal_loss_is_finite_and_moves_at_any_confidence(multilabel):
    emphasis = losses.Emphasis(focal_gamma=0.5, class_weights=(1.0, 2.0))
    labels = jnp.asarray([[1, 0], [1, 0]]) if multilabel else jnp.asarray([0, 0])
    ce = lambda x: losses.cross_entropy(x, labels, multilabel=multilabel, emphasis=emphasis).sum()
    logits = jnp.asarray([[[1e4, -1e4], [-1e4, 1e4]]], jnp.float32)
    value, grad = jax.value_and_grad(ce)(logits)
    assert np.isfinite(value) and np.isfinite(grad).all()
    assert np.abs(grad[0, 1]).max() > 0.1  # of the sample that is wrong


def test_unknown_labels_stay_out_of_an_emphasised_loss():
    emphasis = losses.Emphasis(focal_gamma=2.0, class_weights=(1.0, 2.0), label_smoothing=0.1)
    ce = lambda labels: losses.cross_entropy(
        jnp.asarray([[[0.3, -0.2]]]), jnp.asarray(labels), multilabel=True, emphasis=emphasis
    )
    both, first, second = ce([[1, 0]]), ce([[1, -1]]), ce([[-1, 0]])
    np.testing.assert_allclose(both, first + second, rtol=1e-6)


@pytest.mark.parametrize(
    ("function", "parameter", "default"),
    [
        (losses.ensemble, "temperature", losses.Objective.temperature),
        (losses.ensemble, "multilabel", losses.Objective.multilabel),
        (losses.teacher, "temperature", losses.Objective.temperature),
        (losses.teacher, "multilabel", losses.Objective.multilabel),
        (losses.contrast, "temperature", losses.Objective.contrast_temperature),
        (losses.exit_contrast, "temperature", losses.Objective.contrast_temperature),
        (losses.view_contrast, "temperature", losses.Objective.contrast_temperature),
        (losses.Objective.__call__, "step", 0),
    ],
)
def test_terms_by_themselves_have_the_defaults_of_an_objective(function, parameter, default):
    assert inspect.signature(function).parameters[parameter].default == default


def test_equal_objectives_have_one_hash():
    assert hash(losses.Objective("dsn", mu=2.0)) == hash(losses.Objective("dsn", mu=2.0))


def test_an_unknown_objective_is_an_error_at_once():
    with pytest.raises(ConfigError, match="objective is 'lsa', expected one of baseline, dsn"):
        losses.Objective("lsa")


def test_shapes_that_would_be_broadcast_are_refused(unchecked):
    logits, labels = jnp.ones((2, 4, 3)), jnp.array([0, 1, 2, 1])
    for wrong in (labels[:, None], labels[:1]):
        with pytest.raises(ValueError, match=r"labels of shape .*, expected \(4, 3\) or \(4,\)"):
            losses.cross_entropy(logits, wrong, multilabel=False)
    with pytest.raises(ValueError, match=r"labels of shape \(4,\), expected \(4, 3\)"):
        losses.cross_entropy(logits, labels, multilabel=True)
    with pytest.raises(ValueError, match=r"beta of shape \(4, 1\), expected \(4, 2\)"):
        losses.weighted(jnp.ones((2, 4)), jnp.ones((4, 1)))
    with pytest.raises(ValueError, match="alpha of shape"):
        losses.auxiliary(jnp.ones((2, 4)), jnp.ones(3))
