"""The training step: against PyTorch, on several devices, and several steps in one program."""

import dataclasses
import functools
import hashlib
import inspect
import json
import math
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh

from lsanet_jax import metrics, steps
from lsanet_jax.data import dataset
from lsanet_jax.data.feed.order import Plan, epoch_order
from lsanet_jax.data.feed.resident import Resident, place
from lsanet_jax.data.preprocess import preprocess
from lsanet_jax.errors import ConfigError
from lsanet_jax.losses import OBJECTIVES, Objective
from lsanet_jax.models import pretrained, resnet, supervised
from tests import networks

STAGES = ("stage1", "stage2", "stage3", "stage4")
PREPARE = functools.partial(
    preprocess, image_size=28, resize="nearest", as_rgb=True, mean=(0.5,), std=(0.5,)
)


def samples(n=48, classes=3, size=28):
    """Images whose class is their brightness, with noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=n).astype(np.int32)
    images = rng.normal(70 + 60 * labels[:, None, None, None], 40, (n, size, size, 3))
    return images.clip(0, 255).astype(np.uint8), labels


def setup(
    objective,
    devices=None,
    *,
    tx=None,
    classes=3,
    multilabel=False,
    blocks=(1, 1, 1, 1),
    stem="imagenet",
    dtype=np.float32,
    remat=False,
    prepare=PREPARE,
):
    """A tiny residual network ready to train: (graphdef, state, means, train_step, mesh)."""
    mesh = Mesh(devices or jax.devices()[:1], ("data",))
    uses_lsa = objective in ("dsn_lsa", "lsanet")
    dks = objective == "dks"
    taps = {"baseline": (4,), "dks": (2, 3, 4)}.get(objective, (1, 2, 3, 4))

    def create(rngs):
        return supervised.DeeplySupervised(
            resnet.ResNet(
                resnet.Spec(resnet.BasicBlock, blocks), stem=stem, remat=remat, rngs=rngs
            ),
            classes,
            taps=taps,
            dks=dks,
            probe=objective == "probe",
            lsa={"channels": 8, "kind": "fc", "reduction": 8} if uses_lsa else None,
            image_shape=(28, 28, 3),
            dtype=dtype,
            rngs=rngs,
        )

    tx = tx or optax.adam(1e-3)
    graphdef, state = steps.init(create, tx, jax.random.key(0), mesh)
    objective = Objective(objective, tuple(taps), multilabel)
    train_step = steps.TrainStep(graphdef, tx, prepare, objective).compile(mesh)
    means = metrics.training_means(objective.part_names).empty()
    return graphdef, state, means, train_step, mesh


def train(objective, devices=None, *, num_steps=20, batch=16, per_dispatch=1, **kwargs):
    """Losses of the first steps, and the state and means after them."""
    _, state, means, train_step, mesh = setup(objective, devices, **kwargs)
    images, labels = samples()
    if kwargs.get("multilabel"):
        labels = np.stack([labels > 0, labels > 1, labels == 0], axis=1).astype(np.int32)
    images, labels = place(_Split(images, labels), mesh)
    order = np.concatenate([epoch_order(0, e, len(images), batch) for e in range(num_steps)])[
        :num_steps
    ]
    losses = []
    for i in range(0, num_steps, per_dispatch):
        indices = order[i : i + per_dispatch]
        state, means, parts = train_step(state, means, images, labels, indices)
        losses.extend(np.asarray(parts["loss"]).tolist())
    return losses, state, means


class _Split:
    def __init__(self, images, labels):
        self.images, self.labels = images, labels


@pytest.mark.parametrize(  # test_methods.py has the others
    "objective",
    [
        name if name in ("dks", "lsanet") else pytest.param(name, marks=pytest.mark.slow)
        for name in list(OBJECTIVES)[:7]
    ],
)
def test_every_objective_learns(objective):
    losses, state, means = train(objective, num_steps=12)
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < 0.8 * losses[0]
    assert int(state.step) == 12
    np.testing.assert_allclose(means.compute()["loss"], np.mean(losses), rtol=1e-5)


@pytest.mark.slow
def test_probes_leave_the_backbone_as_it_is_without_them():
    tx = optax.sgd(1e-2)
    _, alone, _ = train("baseline", num_steps=3, tx=tx)
    _, probed, _ = train("probe", num_steps=3, tx=tx)
    _, supervised, _ = train("dsn", num_steps=3, tx=tx)
    largest = lambda a, b: max(
        float(np.max(np.abs(x - y))) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
    )
    for part in ("backbone", "fc"):
        assert largest(alone.params[part], probed.params[part]) < 1e-5
        assert largest(alone.params[part], supervised.params[part]) > 1e-3
    _, before, *_ = setup("probe", tx=tx)
    for i in range(3):
        assert largest(before.params["auxiliary"][i], probed.params["auxiliary"][i]) > 1e-4


@pytest.mark.parametrize("soft", [False, True])
def test_training_accuracy_counts_what_each_classifier_gets_right(soft):
    labels = np.array([0, 1, 2, 1])
    logits = np.stack([np.eye(3)[labels], np.eye(3)[[0, 0, 2, 0]]]).astype(np.float32)
    given = 0.6 * np.eye(3)[labels] + 0.4 * np.eye(3)[[2, 2, 0, 0]] if soft else labels
    found = steps.training_accuracy(np.asarray(logits), np.asarray(given), multilabel=False)
    np.testing.assert_allclose(found, [1, 0.5])
    answers = np.array([[1, 0], [0, 0]])
    logits = np.array([[[2.0, -1.0], [3.0, -1.0]], [[-2.0, 1.0], [-1.0, -1.0]]])
    found = steps.training_accuracy(np.asarray(logits), np.asarray(answers), multilabel=True)
    np.testing.assert_allclose(found, [0.75, 0.5])


def test_a_label_that_is_unknown_or_undecided_is_not_counted_as_right():
    accuracy = lambda logits, labels: steps.training_accuracy(
        np.array(logits, np.float32)[None, :, None], np.array(labels)[:, None], multilabel=True
    ).item()
    assert accuracy([1, -0.5, 0, 2], [1, 1, 0, 0.5]) == 0.5  # above 1/2, the logit above 0
    assert accuracy([1, -0.5, 3], [1, -1, -1]) == 1
    assert accuracy([1], [-1]) == 0


@pytest.mark.parametrize("multilabel", [False, True])
def test_cross_entropy_and_accuracy_of_an_epoch_are_of_its_labelled_images(multilabel):
    rng = np.random.default_rng(0)
    objective = Objective("vicreg", (1, 2), multilabel=multilabel)
    labels = rng.integers(0, 2, (6, 4, 3)) if multilabel else rng.integers(0, 3, (6, 4))
    known = rng.random(labels.shape) < 0.3
    known[0] = False  # a batch without any
    labels = np.where(known, labels, -1)
    logits = rng.normal(size=(2, 6, 4, 3)).astype(np.float32)
    features = rng.normal(size=(2, 8, 5)).astype(np.float32)
    parts = []
    for batch in range(6):
        _, found = objective(logits[:, batch], labels[batch], features=features)
        acc = steps.training_accuracy(
            logits[:, batch], labels[batch], multilabel=multilabel, of_all=True
        )
        of = {"ce": found["ce"], "acc": acc}
        parts.append(
            {f"{name}_stage{i + 1}": of[name][i] for name in of for i in range(2)}
            | {"labelled": found["labelled"]}
        )
    means = {name: float(np.mean([each[name] for each in parts])) for name in parts[0]}
    told = objective.of_labelled(means)
    for i in range(2):
        if multilabel:
            right = ((logits[i] > 0) == labels)[known]
            ce = optax.sigmoid_binary_cross_entropy(logits[i], labels)[known]
        else:
            right = (logits[i].argmax(-1) == labels)[known]
            ce = optax.softmax_cross_entropy_with_integer_labels(logits[i], labels)[known]
        assert told[f"acc_stage{i + 1}"] == pytest.approx(right.mean(), rel=1e-5)
        assert told[f"ce_stage{i + 1}"] == pytest.approx(float(ce.mean()), rel=1e-5)
    none = objective.of_labelled(means | {"labelled": 0.0})
    assert math.isnan(none["acc_stage1"]) and none["labelled"] == 0
    plain = {"loss": 1.0, "ce_stage4": 2.0, "acc_stage4": 0.5}
    assert Objective("baseline", (4,)).of_labelled(plain) == plain


def test_multilabel_learns():
    losses, _, _ = train("lsanet", num_steps=12, multilabel=True)
    assert np.mean(losses[-3:]) < 0.8 * losses[0]


def test_parts_add_up_and_are_named():
    _, state, means, train_step, mesh = setup("lsanet")
    images, labels = place(_Split(*samples()), mesh)
    indices = np.arange(16, dtype=np.int32)[None]
    _, means, parts = train_step(state, means, images, labels, indices)
    assert set(parts) == set(Objective("lsanet", (1, 2, 3, 4)).part_names) == set(means.compute())
    np.testing.assert_allclose(parts["loss"], parts["weighted"] + parts["synergy"], rtol=1e-5)
    np.testing.assert_allclose(sum(parts[f"beta_{s}"] for s in STAGES), 1, rtol=1e-5)


def test_several_steps_in_one_program_are_the_same_steps():
    one_by_one, state, _ = train("baseline", num_steps=4)
    together, state2, _ = train("baseline", num_steps=4, per_dispatch=4)
    np.testing.assert_allclose(together, one_by_one, rtol=1e-4)
    assert int(state.step) == int(state2.step) == 4


@pytest.mark.slow
def test_bfloat16_and_recomputed_blocks_train_in_a_program_of_several_steps():
    wide, *_ = train("lsanet", num_steps=1)
    losses, state, _ = train("lsanet", num_steps=12, per_dispatch=4, dtype=jnp.bfloat16, remat=True)
    np.testing.assert_allclose(losses[0], wide[0], rtol=0.02)
    assert np.mean(losses[-3:]) < 0.8 * losses[0]
    narrow = [x.dtype for x in jax.tree.leaves(state) if x.dtype not in (jnp.float32, jnp.int32)]
    assert not narrow


def test_a_moving_average_is_kept_of_parameters_and_statistics():
    tx = optax.sgd(0.1)
    mesh = Mesh(jax.devices()[:1], ("data",))
    images, labels = samples(24, size=8)
    objective = Objective("baseline", (1, 2))

    def create(rngs):
        backbone = networks.TinyNet(3, rngs)
        return supervised.DeeplySupervised(backbone, 3, image_shape=(8, 8, 3), rngs=rngs)

    def states(ema):
        graphdef, state = steps.init(create, tx, jax.random.key(0), mesh, averaged=ema > 0)
        prepare = lambda images: images / 255.0
        train_step = steps.TrainStep(graphdef, tx, prepare, objective, ema=ema)
        update = jax.jit(train_step.update)
        means = metrics.training_means(objective.part_names).empty()
        yield state
        for i in range(3):
            state, means, _ = update(state, means, images[8 * i :][:8], labels[8 * i :][:8])
            yield state

    plain = [(s.params, s.batch_stats) for s in states(0.0)]
    average, expected = None, plain[0]
    for n, state in enumerate(states(0.15)):
        if n:  # after n - 1 steps: 1/10, 2/11, then 0.15 at most
            decay = min(0.15, n / (9 + n))
            move = lambda a, b, decay=decay: decay * np.asarray(a) + (1 - decay) * np.asarray(b)
            expected = jax.tree.map(move, expected, plain[n])
        average = (state.params, state.batch_stats)
        trained = (state.opt_state.params, state.opt_state.batch_stats)
        for found, wanted in ((average, expected), (trained, plain[n])):
            for a, b in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    last = jax.tree.leaves(plain[-1])
    assert any(
        np.abs(a - b).max() > 1e-3 for a, b in zip(jax.tree.leaves(average), last, strict=True)
    )


class Linear(nnx.Module):
    """Two classifiers of the colour of one pixel, and a count of the batches in training."""

    def __init__(self, rngs):
        self.w = nnx.Param(jax.random.normal(rngs.params(), (2, 3, 3)))
        self.seen = nnx.BatchStat(jnp.zeros(()))

    def supervise(self, x):
        self.seen[...] += 1
        return (jnp.einsum("bhwc,lck->lbk", x, self.w[...]), None), None


@functools.cache
def start_of_linear():
    mesh = Mesh(jax.devices()[:1], ("data",))
    return steps.init(Linear, optax.sgd(0.1), jax.random.key(0), mesh)


def linear(prepare=lambda images: images / 255.0, **options):
    """(train_step, state, means) of the two classifiers."""
    graphdef, state = start_of_linear()
    objective = Objective("dsn", (1, 2))
    train_step = steps.TrainStep(graphdef, optax.sgd(0.1), prepare, objective, **options)
    return train_step, state, metrics.training_means(objective.part_names).empty()


def pixels(num=8):
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (num, 1, 1, 3), np.uint8)
    return images, rng.integers(3, size=num).astype(np.int32)


def assert_same(found, expected, **tolerance):
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def test_the_average_follows_fast_at_first():
    train_step, state, _ = linear(ema=0.9)
    further = jax.tree.map(lambda a: a + 1, (state.params, state.batch_stats))
    for done, kept in ((0, 1 / 10), (2, 3 / 12), (7, 8 / 17), (1000, 0.9)):
        old = state._replace(step=jnp.int32(done))
        new = steps.TrainState(old.step + 1, *further, state.opt_state)
        found = train_step.averaged(old, new)
        for a, b in zip(*map(jax.tree.leaves, (found[1:3], old[1:3])), strict=True):
            np.testing.assert_allclose(a - b, 1 - kept, rtol=1e-4)
        assert_same(found.opt_state, (state.opt_state, *further), rtol=0)
        assert found.step == done + 1


def test_the_average_of_what_does_not_move_stays_to_the_bit():
    train_step, state, _ = linear(ema=0.9)
    fixed = jax.tree.map(
        lambda a: jnp.asarray(np.random.default_rng(0).normal(size=a.shape), a.dtype), state.params
    )
    old = state._replace(params=fixed)
    for done in (0, 3, 1000):
        now = steps.TrainState(jnp.int32(done), fixed, old.batch_stats, old.opt_state)
        found = train_step.averaged(old._replace(step=jnp.int32(done)), now)
        for a, b in zip(*map(jax.tree.leaves, (found.params, fixed)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_step_that_is_not_finite_changes_only_the_number_of_steps():
    train_step, start, nothing = linear(lambda x: jnp.log(x / 255.0), skip_nonfinite=True)
    update = jax.jit(train_step.update)
    images, labels = pixels()
    state, means, parts = update(start, nothing, images, labels)
    assert (parts["skipped"], state.step, jax.tree.leaves(state.batch_stats)) == (0, 1, [1])
    assert (jax.tree.leaves(state.params)[0] != jax.tree.leaves(start.params)[0]).any()
    images[3] = 0  # The logarithm is not finite.
    after, means_after, parts = update(state, means, images, labels)
    assert (parts["skipped"], after.step) == (1, 2)
    assert_same((after[1:], means_after), (state[1:], means), rtol=0)


def test_means_keep_their_types_with_64_bits():
    train_step, state, means = linear()
    with jax.enable_x64(True):
        _, merged, _ = jax.jit(train_step.update)(state, means, *pixels())
    dtypes = lambda tree: [leaf.dtype for leaf in jax.tree.leaves(tree)]
    assert dtypes(merged) == dtypes(means)


def test_initial_weights_do_not_follow_jaxs_way_to_draw():
    draw = lambda: steps.init_model(Linear, jax.random.key(0), mesh)[1]
    mesh = Mesh(jax.devices()[:1], ("data",))
    with jax.threefry_partitionable(False):
        other = draw()
    assert_same(other, draw(), rtol=0)


def test_classifiers_learn_from_the_first_views():
    twice = lambda step, images, labels: (jnp.concatenate([images, 255 - images]) / 255.0, labels)
    found = []
    for options in ({}, {"augment": twice}):
        train_step, *start = linear(**options)
        state, _, parts = jax.jit(train_step.update)(*start, *pixels())
        found.append((state.params, parts))
    assert_same(*found, rtol=1e-6)


def test_a_loss_leaves_the_statistics_that_it_was_given_as_they_are():
    train_step, state, _ = linear()
    images, labels = pixels()
    loss = lambda x: train_step.loss(state.params, state.batch_stats, x, labels)
    jax.eval_shape(loss, images / np.float32(255))  # A change of what is outside is an error here.
    assert jax.tree.leaves(state.batch_stats) == [0]
    assert inspect.signature(train_step.loss).parameters["step"].default == 0


@pytest.mark.parametrize(
    ("step", "num"), [("TrainStep", 4), ("CompiledTrainStep", 1), ("EvalStep", 2)]
)
def test_steps_are_frozen_and_compared_by_identity(step, num):
    make = lambda: getattr(steps, step)(*[None] * num)
    made = make()
    assert made != make() and len({made, make()}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.graphdef = made.on_leaves = None


def test_a_dispatch_of_two_batches_is_two_dispatches_of_one():
    images, labels = (array.reshape(2, 4, *array.shape[1:]) for array in pixels())
    train_step, *start = linear(resident=False)
    run = jax.jit(train_step.__call__)
    state, means, first = run(*start, images[:1], labels[:1])
    *one_by_one, second = run(state, means, images[1:], labels[1:])
    *together, parts = run(*start, images, labels)
    assert together[0].step == 2
    assert_same(together, one_by_one, rtol=1e-5)
    for name, found in parts.items():
        np.testing.assert_allclose(found, np.append(first[name], second[name]), rtol=1e-5)


def test_variables_that_no_checkpoint_holds_are_refused():
    class Counting(Linear):
        def __init__(self, rngs):
            super().__init__(rngs)
            self.count = nnx.Cache(jnp.zeros(()))

    mesh = Mesh(jax.devices()[:1], ("data",))
    with pytest.raises(ConfigError, match="has a Cache at count, expected parameters"):
        steps.init_model(Counting, jax.random.key(0), mesh)


def in_torchs_layout(graphdef, state):
    variables = pretrained.inference_variables(nnx.merge(graphdef, state.params, state.batch_stats))
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
    return {name: np.asarray(v[...]).transpose(axes[v.ndim]) for name, v in variables.items()}


def torchs_step(peer, optimizer, x, y):
    """Train PyTorch's network on a batch; its loss."""
    import torch

    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(peer(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


@pytest.mark.slow
def test_in_float64_adam_and_its_schedule_take_pytorchs_path():
    """In float32 rounding drives two libraries apart within some steps; this is the mathematics."""
    torch = pytest.importorskip("torch")
    from benchmarks.torch_resnet import ResNet18

    pixels = lambda images: (images / 255 - 0.5) / 0.5
    images, labels = samples()
    order = np.concatenate([epoch_order(0, e, len(images), 16) for e in range(1, 5)])
    with jax.enable_x64(True):
        schedule = optax.piecewise_constant_schedule(1e-3, {6: 0.1})
        graphdef, state, means, train_step, mesh = setup(
            "baseline",
            tx=optax.adam(schedule),
            blocks=(2, 2, 2, 2),
            dtype=np.float64,
            prepare=lambda images: pixels(images.astype(np.float64)),
        )
        wide = lambda x: x.astype(np.float64) if x.dtype == np.float32 else x
        state, means = jax.tree.map(wide, (state, means))
        peer = ResNet18(3).double()
        start = in_torchs_layout(graphdef, state)
        peer.load_state_dict({n: torch.tensor(a) for n, a in start.items()}, strict=False)
        optimizer = torch.optim.Adam(peer.parameters(), 1e-3)
        steps_down = torch.optim.lr_scheduler.MultiStepLR(optimizer, [6])
        placed = place(_Split(images, labels), mesh)
        x = torch.tensor(pixels(images.transpose(0, 3, 1, 2).astype(np.float64)))
        y = torch.tensor(labels, dtype=torch.int64)
        for indices in order:
            state, means, parts = train_step(state, means, *placed, indices[None])
            loss = torchs_step(peer, optimizer, x[indices], y[indices])
            steps_down.step()
            np.testing.assert_allclose(parts["loss"][0], loss, rtol=1e-9)
        theirs = peer.state_dict()
        for name, found in in_torchs_layout(graphdef, state).items():
            largest = float(theirs[name].abs().max())
            np.testing.assert_allclose(found, theirs[name].numpy(), rtol=0, atol=1e-8 * largest)


def test_losses_follow_pytorch():
    torch = pytest.importorskip("torch")
    from benchmarks.torch_resnet import ResNet18

    rate = 0.01
    graphdef, state, means, train_step, mesh = setup(
        "baseline", tx=optax.sgd(rate, momentum=0.9), blocks=(2, 2, 2, 2)
    )
    images, labels = samples()
    order = epoch_order(0, 1, len(images), 16)

    peer = ResNet18(3)
    tensors = in_torchs_layout(graphdef, state)
    peer.load_state_dict({n: torch.tensor(a) for n, a in tensors.items()}, strict=False)
    optimizer = torch.optim.SGD(peer.parameters(), rate, momentum=0.9)
    x = torch.tensor((images.transpose(0, 3, 1, 2) / 255 - 0.5) / 0.5, dtype=torch.float32)
    y = torch.tensor(labels, dtype=torch.int64)

    placed = place(_Split(images, labels), mesh)
    for indices in order:
        state, means, parts = train_step(state, means, *placed, indices[None])
        loss = torchs_step(peer, optimizer, x[indices], y[indices])
        np.testing.assert_allclose(parts["loss"][0], loss, rtol=2e-3)
    means_of_stats = np.asarray(state.batch_stats["backbone"]["bn1"]["mean"][...])
    np.testing.assert_allclose(means_of_stats, peer.bn1.running_mean.numpy(), rtol=1e-3, atol=1e-4)

    probabilities, ce, beta = steps.EvalStep(graphdef, PREPARE).compile(mesh)(
        state.params, state.batch_stats, *placed, np.arange(48, dtype=np.int32)
    )
    peer.eval()
    with torch.no_grad():
        expected = torch.softmax(peer(x), dim=1).numpy()
    assert beta is None
    np.testing.assert_allclose(probabilities[0], expected, atol=0.02)
    chosen = np.asarray(probabilities[0])[np.arange(48), labels]
    np.testing.assert_allclose(ce[0], -np.log(chosen), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_any_number_of_devices_has_the_batches_and_losses_of_one():
    command = [sys.executable, "-m", "tests.test_steps"]
    root = pathlib.Path(__file__).parents[1]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    one, *others = map(json.loads, result.stdout.splitlines()[-3:])
    assert len(one["losses"]) == 50
    for other in others:
        assert other["batches"] == one["batches"]
        np.testing.assert_allclose(other["losses"], one["losses"], rtol=1e-4)


def digest_of_batches(devices):
    """SHA-256 of the index stream of three epochs, as the devices have it."""
    images, labels = samples()
    split = dataset.Split(images, labels)
    whole = dataset.Dataset("cells", "multi-class", ("a", "b", "c"), split, split, split)
    plan = Plan(5, 3, len(split), batch_size=16, eval_batch_size=16, steps_per_dispatch=2)
    feed = Resident(whole, plan, Mesh(devices, ("data",)))
    digest = hashlib.sha256()
    for epoch in (1, 2, 3):
        for *_, indices in feed.train(epoch):
            assert len(indices.sharding.device_set) == len(devices)
            digest.update(np.asarray(indices))
    return digest.hexdigest()


if __name__ == "__main__":  # a process of its own, for it needs four devices
    jax.config.update("jax_num_cpu_devices", 4)
    # The small stem, and gentle steps: on maps of one pixel batch norm divides by the spread of 16
    # numbers, and makes a difference in rounding a thousand times larger in one step.
    arguments = {"tx": optax.sgd(3e-4), "stem": "small", "num_steps": 50}
    for n in (1, 2, 4):
        losses = train("lsanet", jax.devices()[:n], **arguments)[0]
        print(json.dumps({"losses": losses, "batches": digest_of_batches(jax.devices()[:n])}))
