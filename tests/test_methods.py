"""The objectives beyond the paper: against PyTorch, in their networks, and as they learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

from configs import common
from lsanet_jax import build, losses, metrics, models, steps
from lsanet_jax.data.augment import Augmentation, second_view
from lsanet_jax.errors import ConfigError
from tests.networks import model_config
from tests.test_losses import example

try:
    import torch
except ImportError:  # most tests here do without
    torch = None
needs_torch = pytest.mark.skipif(torch is None, reason="no PyTorch here")

T, L, B, K = 3.0, 3, 4, 3
NEW = ("dsn_halving", "dhm", "ensemble_distill", "byot", "selfcon", "contrastive")


def questions(logits, multilabel):
    """Log-probabilities of the answers: [..., K], or [..., K, 2] for yes and no."""
    if multilabel:
        sign = torch.nn.functional.logsigmoid
        return torch.stack([sign(logits), sign(-logits)], -1)
    return torch.log_softmax(logits, -1)


def divergence(log_p, log_q, multilabel):
    """Mean over the batch of KL(p || q); over labels, too, if each is a question of its own."""
    each = (log_p.exp() * (log_p - log_q)).sum(-1)
    return each.mean()


def cross_entropies(logits, labels, multilabel):
    f = torch.nn.functional
    if multilabel:
        return [f.binary_cross_entropy_with_logits(z, labels.double()) for z in logits]
    return [f.cross_entropy(z, labels) for z in logits]


def supervised_contrast(z, labels, temperature):
    """Khosla et al., Eq. 2, one anchor after the other."""
    total = 0
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        normaliser = torch.logsumexp(torch.stack([z[i] @ z[a] for a in others]) / temperature, 0)
        positives = [p for p in others if labels[p] == labels[i]]
        total += sum(normaliser - z[i] @ z[p] / temperature for p in positives) / len(positives)
    return total / len(z)


def in_torch(name, logits, labels, features, multilabel):
    """The loss of `losses.Objective(name)` with its default weights, written anew."""
    ce = cross_entropies(logits, labels, multilabel)
    if name == "dsn_halving":
        return sum(2.0**i * loss for i, loss in enumerate(ce)) / 7
    if name == "selfcon":
        z = torch.cat(list(features))
        return ce[-1] + 0.1 * supervised_contrast(z, labels.repeat(L), 0.07)
    if name == "contrastive":
        stages = [supervised_contrast(z, labels.repeat(2), 0.07) for z in features]
        return ce[-1] + 0.1 * sum(stages)
    if name == "dhm":
        logs = [questions(z, multilabel) for z in logits]
        pairs = [(q.detach(), p) for p in logs for q in logs if p is not q]
        return sum(ce) + sum(divergence(q, p, multilabel) for q, p in pairs)
    logs = [questions(z / T, multilabel) for z in logits]
    if name == "ensemble_distill":
        target = torch.stack([log.exp() for log in logs]).mean(0).log().detach()
        return sum(ce) + 0.1 * T**2 * sum(divergence(target, log, multilabel) for log in logs)
    target = logs[-1].detach()
    loss = sum(ce) + 0.1 * T**2 * sum(divergence(target, log, multilabel) for log in logs[:-1])
    hints = [((f - features[-1].detach()) ** 2).mean() for f in features[:-1]]
    return loss + 0.03 * sum(hints)


def inputs(name, multilabel):
    rng = np.random.default_rng(0)
    logits, labels, _ = example(L, B, K)
    if multilabel:
        labels = rng.integers(2, size=(B, K))
    shape = {"byot": (L, B, 2, 2, 5), "selfcon": (L, B, 5), "contrastive": (L - 1, 2 * B, 5)}
    features = rng.normal(size=shape.get(name, (1, B, 1)))
    if name in ("selfcon", "contrastive"):
        features /= np.linalg.norm(features, axis=-1, keepdims=True)
    return logits, labels, features


@needs_torch
@pytest.mark.parametrize(
    ("name", "multilabel"),
    [(name, False) for name in NEW] + [(name, True) for name in NEW[:4]],
)
def test_losses_and_gradients_are_pytorchs(name, multilabel):
    logits, labels, features = inputs(name, multilabel)
    tensors = [torch.tensor(x, requires_grad=True) for x in (logits, features)]
    expected = in_torch(name, tensors[0], torch.tensor(labels), tensors[1], multilabel)
    expected.backward()
    objective = losses.Objective(name, multilabel=multilabel)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def loss(logits, features):
        return objective(logits, jnp.asarray(labels), None, features)[0]

    with jax.enable_x64(True):
        found, gradients = loss(jnp.asarray(logits), jnp.asarray(features))
    np.testing.assert_allclose(found, expected.item(), rtol=1e-5)
    for gradient, tensor in zip(gradients, tensors, strict=True):
        wanted = np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.numpy()
        np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-9)


def vicreg_in_torch(z):
    """VICReg of one stage, [2, b, c], as its paper defines it, with the paper's weights."""
    total = 25 * torch.nn.functional.mse_loss(z[0], z[1])
    for view in z:
        std = torch.sqrt(view.var(dim=0) + 1e-4)
        total = total + 25 * torch.relu(1 - std).mean() / 2
        cov = torch.cov(view.T)
        total = total + (cov - torch.diag(torch.diag(cov))).pow(2).sum() / z.shape[2]
    return total


@needs_torch
def test_vicreg_and_its_gradient_are_pytorchs_and_the_classifiers_stand_apart():
    rng = np.random.default_rng(0)
    features, logits = rng.normal(0, 0.7, (3, 12, 5)), rng.normal(size=(3, 6, 4))
    labels = np.array([0, -1, 3, -1, 2, 1])
    theirs = torch.tensor(features.reshape(3, 2, 6, 5), requires_grad=True)
    expected = sum(vicreg_in_torch(z) for z in theirs)
    expected.backward()
    with jax.enable_x64(True):
        objective = losses.Objective("vicreg", (1, 2, 3))
        loss = lambda f: objective(jnp.asarray(logits), jnp.asarray(labels), None, f)
        compute = jax.jit(jax.value_and_grad(loss, has_aux=True))
        (value, parts), gradient = compute(jnp.asarray(features))
    known = labels >= 0
    log_p = torch.log_softmax(torch.tensor(logits), -1).numpy()
    ce = -log_p[:, known, labels[known]].sum(axis=1) / 6
    np.testing.assert_allclose(parts["ce"], ce, rtol=1e-9)
    np.testing.assert_allclose(value, expected.item() + ce.sum(), rtol=1e-6)
    np.testing.assert_allclose(gradient, theirs.grad.numpy().reshape(3, 12, 5), rtol=1e-5)
    spread = torch.sqrt(theirs.var(dim=2) + 1e-4).mean(dim=(1, 2)).min().item()
    np.testing.assert_allclose(parts["spread"], spread, rtol=1e-6)


def test_mimicking_has_the_value_of_synergy_and_another_gradient():
    logits = jnp.asarray(example()[0], jnp.float32)
    value, gradient = jax.jit(jax.value_and_grad(losses.mimicking))(logits)
    other, others_gradient = jax.jit(jax.value_and_grad(losses.synergy))(logits)
    np.testing.assert_allclose(value, other, rtol=1e-5)
    assert np.abs(gradient - others_gradient).max() > 0.01


def test_mu_grows_in_proportion_to_the_step_and_then_stays():
    logits, labels, _ = map(jnp.asarray, example())
    plain = losses.Objective("dsn_ks", mu=2.0)
    ramp = losses.Objective("dsn_ks", mu=2.0, mu_warmup_steps=8)
    part = lambda objective: jax.jit(lambda n: objective(logits, labels, step=n)[1]["synergy"])
    growing = part(ramp)
    found = [growing(step) / part(plain)(0) for step in (0, 2, 8, 100)]
    np.testing.assert_allclose(found, [0, 0.25, 1, 1], rtol=1e-5)


def test_a_second_view_flips_only_what_the_run_flips():
    assert second_view(Augmentation()) == Augmentation(
        shift=0.125, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1
    )
    strong = Augmentation(hflip=True, brightness=0.8, mixup=0.2)
    assert second_view(strong).hflip
    assert second_view(strong).brightness == 0.8
    assert second_view(strong).mixup == 0


def small_config(objective, **model):
    config = common.get_config()
    config.data.size = config.data.image_size = 16
    config.train.batch_size = config.eval.batch_size = 16
    config.model.update(
        objective=objective, backbone="tests.networks:TinyNet", taps=(1, 2), **model
    )
    return config


def samples(num=16, classes=3):
    """Images whose class is their brightness, with noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(num) % classes
    images = rng.normal(70 + 60 * labels[:, None, None, None], 30, (num, 16, 16, 3))
    return images.clip(0, 255).astype(np.uint8), labels.astype(np.int32)


def test_contrastive_sees_the_images_as_they_are_and_then_changed():
    augment = build.make_augment(small_config("contrastive"), preparing, 3)
    images, labels = map(jnp.asarray, samples())
    x, same = augment(jnp.int32(0), images, labels)
    np.testing.assert_array_equal(same, labels)
    np.testing.assert_allclose(x[:16], preparing(images), atol=1e-6)
    assert np.abs(x[16:] - x[:16]).mean() > 0.05
    again, _ = augment(jnp.int32(0), images, labels)
    later, _ = augment(jnp.int32(1), images, labels)
    np.testing.assert_array_equal(again, x)
    assert np.abs(later[16:] - x[16:]).mean() > 0.01


def preparing(images, augment=None):
    x = images.astype(jnp.float32) / 255
    return (x if augment is None else augment(images=x)) * 2 - 1


@pytest.mark.parametrize("objective", ["byot", "contrastive"])
def test_networks_with_new_parts_learn(objective):
    config = small_config(objective)
    mesh = Mesh(jax.devices()[:1], ("data",))
    create = lambda rngs: models.create_model(config.model, 3, (16, 16, 3), rngs)
    tx = optax.adam(3e-3)
    graphdef, state = steps.init(create, tx, jax.random.key(0), mesh)
    loss = losses.Objective(objective, (2,) if objective == "contrastive" else (1, 2))
    augment = build.make_augment(config, preparing, 3)
    step = steps.TrainStep(graphdef, tx, preparing, loss, augment).compile(mesh)
    means = metrics.training_means(loss.part_names).empty()
    images, labels = samples()
    found = []
    for _ in range(12):
        state, means, parts = step(state, means, images, labels, np.arange(16)[None])
        found.append(float(parts["loss"][0]))
        assert set(parts) == set(loss.part_names)
    assert np.isfinite(found).all()
    assert np.mean(found[-3:]) < 0.8 * found[0]


@pytest.mark.parametrize("objective", ["selfcon", "contrastive"])
def test_contrast_is_refused_where_images_have_no_one_class(objective):
    from lsanet_jax import config as config_lib
    from lsanet_jax.data.dataset import Dataset, Split

    config = small_config(objective)
    config.data.augment.mixup = 0.2
    with pytest.raises(ConfigError, match=r"augment\.mixup = 0\.2 blends images"):
        config_lib.validate(config)
    config.data.augment.mixup = 0.0
    images, _ = samples()
    split = Split(images, np.zeros((16, 3), np.int32))
    dataset = Dataset("films", "multi-label", ("a", "b", "c"), split, split, split)
    with pytest.raises(ConfigError, match=f"{objective}.*films is multi-label"):
        build.make_objective(config, dataset, None, None)


def weights_of(kind, **lsa):
    """beta of a network for two images, and the names of its parts."""
    config = model_config(objective="lsanet", backbone="tests.networks:TinyNet", taps=(1, 2))
    config.lsa.update(kind=kind, **lsa)
    from flax import nnx

    model = models.create_model(config, 3, (16, 16, 3), nnx.Rngs(0))
    parts = {path[0] for path, _ in nnx.to_flat_state(nnx.state(model))}
    return model(jnp.asarray(preparing(samples()[0][:2]))).beta, parts - {"backbone", "fc"}


def test_weights_that_are_the_same_for_every_image():
    beta, parts = weights_of("uniform")
    np.testing.assert_allclose(beta, np.full((2, 2), 0.5))
    assert parts == {"auxiliary"}
    beta, parts = weights_of("frozen", beta=(0.2, 0.6))
    np.testing.assert_allclose(beta, [[0.25, 0.75]] * 2, rtol=1e-6)
    assert parts == {"auxiliary"}
    beta, parts = weights_of("constant")
    np.testing.assert_allclose(beta, np.full((2, 2), 0.5))
    assert parts == {"auxiliary", "lsa"}


def test_frozen_weights_are_asked_for():
    with pytest.raises(
        ConfigError, match=r"lsa\.beta = \(\) has 0 weights, expected 2.*result\.json"
    ):
        weights_of("frozen")
