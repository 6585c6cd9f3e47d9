import os
import subprocess
import sys

import numpy as np
import pytest

from lsanet_jax.data.feed.order import (
    Plan,
    balanced_order,
    epoch_order,
    eval_batch_size,
    eval_batches,
)


@pytest.mark.parametrize(("num_samples", "batch_size"), [(10, 4), (12, 4), (1, 1), (3, 8), (5, 2)])
def test_an_epoch_is_a_permutation_completed_with_its_own_start(num_samples, batch_size):
    order = epoch_order(0, 3, num_samples, batch_size)
    assert order.dtype == np.int32
    assert order.shape == (-(-num_samples // batch_size), batch_size)
    flat = order.ravel()
    assert sorted(flat[:num_samples]) == list(range(num_samples))
    for position in range(num_samples, flat.size):
        assert flat[position] == flat[position - num_samples]


def test_epochs_and_seeds_differ_and_repeat():
    def order(seed, epoch):
        return tuple(epoch_order(seed, epoch, 100, 10).ravel().tolist())

    orders = [order(seed, epoch) for seed in (0, 1, 2**32 - 1) for epoch in (0, 1, 2)]
    assert len(set(orders)) == 9
    assert order(1, 2) == orders[5]


def test_the_batch_size_does_not_change_the_permutation():
    a, b = (epoch_order(0, 0, 24, batch_size).ravel() for batch_size in (4, 8))
    np.testing.assert_array_equal(a, b)


def test_the_order_does_not_depend_on_devices_or_flags():
    program = (
        "import jax; from lsanet_jax.data.feed.order import epoch_order;"
        "print(jax.device_count(), epoch_order(5, 6, 50, 8).tolist())"
    )
    expected = str(epoch_order(5, 6, 50, 8).tolist())
    for count, flags in ((1, {}), (4, {"JAX_THREEFRY_PARTITIONABLE": "0", "JAX_ENABLE_X64": "1"})):
        env = os.environ | {"JAX_NUM_CPU_DEVICES": str(count), "JAX_PLATFORMS": "cpu"} | flags
        env["JAX_DEFAULT_PRNG_IMPL"] = "rbg"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env
        )
        assert done.stdout.strip() == f"{count} {expected}"


@pytest.mark.parametrize("num_samples", [1, 7, 8, 9])
def test_evaluation_is_in_order_and_padded_with_the_last_sample(num_samples):
    batches = eval_batches(num_samples, 4)
    assert batches.dtype == np.int32
    flat = batches.ravel()
    assert flat.size % 4 == 0
    assert flat.size - num_samples < 4
    np.testing.assert_array_equal(flat[:num_samples], np.arange(num_samples))
    assert set(flat[num_samples:]) <= {num_samples - 1}


@pytest.mark.parametrize(
    ("num_samples", "most", "devices", "expected"),
    [
        (120, 256, 1, 120),  # one batch
        (400, 256, 1, 200),  # two equal ones, where 2 x 256 compute 112 images for nothing
        (1003, 256, 4, 256),
        (121, 256, 3, 144),  # of 8 and of 3
        (3, 256, 1, 64),
        (3, 16, 4, 16),
        (100, 20, 4, 20),
        (257, 300, 4, 264),
    ],
)
def test_evaluation_batches_are_filled(num_samples, most, devices, expected):
    assert eval_batch_size(num_samples, most, devices) == expected


def test_a_plan_has_each_epoch_in_dispatches():
    plan = Plan(
        seed=3, epochs=2, num_train=21, batch_size=4, eval_batch_size=5, steps_per_dispatch=4
    )
    assert (plan.steps_per_epoch, plan.dispatches_per_epoch) == (6, 2)
    for epoch in (1, 2):
        parts = list(plan.epoch(epoch))
        assert [len(part) for part in parts] == [4, 2]
        np.testing.assert_array_equal(np.concatenate(parts), epoch_order(3, epoch, 21, 4))
        np.testing.assert_array_equal(next(iter(plan.epoch(epoch, 4))), parts[1])
    assert [plan.position(1), plan.position(1, 4), plan.position(2), plan.position(3)] == [
        0,
        1,
        2,
        4,
    ]
    np.testing.assert_array_equal(plan.evaluation(7), eval_batches(7, 5))


def test_a_balanced_epoch_has_every_class_as_often_and_is_as_long():
    labels = np.repeat(np.int32([0, 1, 3]), [30, 8, 3])  # 41 in 11 batches of 4
    orders = [balanced_order(5, epoch, labels, 4) for epoch in (1, 2, 3, 1)]
    assert orders[0].shape == epoch_order(5, 1, 41, 4).shape and orders[0].dtype == np.int32
    counts = [np.bincount(labels[order.ravel()]) for order in orders]
    assert all(sorted(count) == [0, 14, 15, 15] and count[2] == 0 for count in counts)
    np.testing.assert_array_equal(sum(counts[:3])[[0, 1, 3]], 44)
    np.testing.assert_array_equal(orders[0], orders[3])
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], balanced_order(6, 1, labels, 4))
    for order in orders:
        times = np.bincount(order.ravel(), minlength=41)
        assert times[:30].max() == 1  # a large class: no image twice
        assert set(times[30:38]) <= {1, 2} and set(times[38:]) <= {4, 5}
    assert set(orders[0].ravel()[:30]) != set(orders[1].ravel()[:30])


def test_a_plan_can_be_balanced():
    labels = np.repeat(np.int32([0, 1]), [18, 3])
    plan = Plan(3, 2, num_train=21, batch_size=4, eval_batch_size=5, balance=labels)
    found = np.concatenate(list(plan.epoch(2)))
    np.testing.assert_array_equal(found, balanced_order(3, 2, labels, 4))
