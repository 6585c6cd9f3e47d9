import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lsanet_jax import optim


def test_learning_rate_falls_at_the_milestones():
    step = functools.partial(
        optim.learning_rate_schedule, 1e-3, kind="step", epochs=100, milestones=(0.5, 0.75)
    )
    rate = step(steps_per_epoch=5)
    np.testing.assert_allclose([rate(0), rate(249)], 1e-3)
    np.testing.assert_allclose([rate(250), rate(374)], 1e-4, rtol=1e-6)
    np.testing.assert_allclose([rate(375), rate(499)], 1e-5, rtol=1e-6)
    # In binary, times 100 a little less than 29 and 57.
    rate = step(steps_per_epoch=1, milestones=(0.29, 0.57))
    np.testing.assert_allclose([rate(28), rate(29), rate(56), rate(57)], [1e-3, 1e-4, 1e-4, 1e-5])
    # None before the first step.
    assert step(steps_per_epoch=5, epochs=1)(4) == np.float32(1e-3)
    rate = step(steps_per_epoch=5, kind="cosine")
    np.testing.assert_allclose([rate(0), rate(250), rate(500)], [1e-3, 5e-4, 0], atol=1e-9)
    assert step(steps_per_epoch=5, kind="constant")(499) == np.float32(1e-3)


def test_warm_up_multiplies_the_schedule():
    torch = pytest.importorskip("torch")
    rate = optim.learning_rate_schedule(
        0.1, kind="cosine", epochs=4, steps_per_epoch=5, warmup_epochs=1.6
    )
    peer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedulers = torch.optim.lr_scheduler
    warm_up = schedulers.LinearLR(peer, start_factor=1 / 8, total_iters=7)
    cosine = schedulers.CosineAnnealingLR(peer, 20)
    theirs = schedulers.ChainedScheduler([warm_up, cosine], optimizer=peer)
    for step in range(20):
        np.testing.assert_allclose(rate(step), peer.param_groups[0]["lr"], rtol=1e-5)
        peer.step()
        theirs.step()


START = {"stem": np.array([1.0, -2.0]), "head": np.array([[0.5, 3.0]])}


def gradients(step):
    """Of a made-up loss: a different one in each step, some of them large."""
    rng = np.random.default_rng(step)
    return {name: rng.normal(0, 3, value.shape) for name, value in START.items()}


def ours(tx, num_steps):
    with jax.enable_x64(True):
        params = {name: jnp.asarray(value) for name, value in START.items()}
        state = tx.init(params)
        update = jax.jit(tx.update)
        for step in range(num_steps):
            updates, state = update(gradients(step), state, params)
            params = optax.apply_updates(params, updates)
        return params


def torchs(make, num_steps, *, clip=0.0, accumulate=1, rates=None):
    torch = pytest.importorskip("torch")
    params = {name: torch.tensor(value, requires_grad=True) for name, value in START.items()}
    groups = [{"params": [p], "lr": (rates or {}).get(n, 0.1)} for n, p in params.items()]
    optimizer = make(torch.optim)(groups)
    for step in range(num_steps):
        for name, gradient in gradients(step).items():
            part = torch.tensor(gradient) / accumulate
            params[name].grad = part if params[name].grad is None else params[name].grad + part
        if (step + 1) % accumulate == 0:
            if clip:
                torch.nn.utils.clip_grad_norm_(params.values(), clip)
            optimizer.step()
            optimizer.zero_grad()
    return {name: value.detach().numpy() for name, value in params.items()}


SGD = lambda torch_optim: functools.partial(torch_optim.SGD, momentum=0.9)
ADAMW = lambda torch_optim: functools.partial(torch_optim.AdamW, weight_decay=0.1)


@pytest.mark.parametrize("options", [{"clip_norm": 2.0}, {"accumulate": 3}], ids=str)
def test_clipping_and_accumulation_are_pytorchs(options):
    found = ours(optim.optimizer("sgd", optax.constant_schedule(0.1), **options), 7)
    clip, accumulate = options.get("clip_norm", 0.0), options.get("accumulate", 1)
    expected = torchs(SGD, 7, clip=clip, accumulate=accumulate)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)


def test_with_accumulation_the_schedule_still_counts_steps():
    schedule = optax.piecewise_constant_schedule(0.1, {4: 0.0})
    tx = optim.optimizer("sgd", schedule, momentum=0.0, accumulate=2)
    stopped, running = ours(tx, 8), ours(tx, 4)
    np.testing.assert_array_equal(stopped["stem"], running["stem"])


def test_factors_are_those_of_pytorchs_parameter_groups_and_0_leaves_alone():
    tx = optim.optimizer("adamw", optax.constant_schedule(0.1), weight_decay=0.1)
    found = ours(optim.scaled(tx, {"stem": 0.5, "head": 1.0}), 5)
    for name, value in torchs(ADAMW, 5, rates={"stem": 0.05, "head": 0.1}).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)
    held = ours(optim.scaled(tx, {"stem": 0.0, "head": 1.0}), 5)
    np.testing.assert_array_equal(held["stem"], START["stem"])
    np.testing.assert_array_equal(held["head"], found["head"])


def test_what_is_held_gets_no_gradient():
    loss = lambda p: jnp.sum(optim.hold(p, {"stem": 0.0, "head": 0.3})["stem"] * p["head"].sum())
    gradient = jax.grad(loss)({name: jnp.asarray(value) for name, value in START.items()})
    np.testing.assert_array_equal(gradient["stem"], 0)
    assert np.abs(gradient["head"]).min() > 0
