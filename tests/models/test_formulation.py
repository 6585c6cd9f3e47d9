"""The CPU's and the GPU's formulation compute the same, and the GPU's splits over devices."""

import collections
import functools
import math
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh

from lsanet_jax import metrics, models, steps
from lsanet_jax.errors import ConfigError
from lsanet_jax.losses import Objective
from lsanet_jax.models import formulation, layers, sums
from tests.conftest import ROOT
from tests.networks import abstract_model, model_config, shrink_families

FAMILIES = ("resnet18", "resnet50", "resnext50", "vgg16", "densenet121")
# ResNeXt-50 has all that ResNet-50 has, and grouped convolutions.
FAMILY_PARAMS = [
    pytest.param(name, marks=[pytest.mark.slow] if name == "resnet50" else []) for name in FAMILIES
]
SIZE = 32
QUICK = {"xla_backend_optimization_level": 0}  # To compile takes longer than to run.
BYTES = {"f32": 4, "s32": 4, "u32": 4, "pred": 1}


@pytest.fixture(params=["cpu", "gpu"])
def either(request, monkeypatch):
    monkeypatch.setenv(formulation.VARIABLE, request.param)
    return request.param


def test_the_backend_decides_unless_the_environment_does(monkeypatch):
    monkeypatch.delenv(formulation.VARIABLE, raising=False)
    assert formulation.is_for_cpu()
    assert formulation.compiler_options()  # None if a new XLA does not know them any more.
    monkeypatch.setenv(formulation.VARIABLE, "gpu")
    assert not formulation.is_for_cpu()
    assert not formulation.compiler_options()
    monkeypatch.setenv(formulation.VARIABLE, "tpu")
    with pytest.raises(ConfigError, match="LSANET_FORMULATION = 'tpu'.*expected cpu, gpu or unset"):
        formulation.is_for_cpu()


@pytest.mark.parametrize("shape", [(3, 5, 7, 4), (2, 16, 2, 3), (5, 1, 1, 2), (6, 5)])
def test_channel_sums_are_numpys(either, shape):
    maps = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    expected = maps.astype(np.float64).reshape(3, -1, shape[-1]).sum(axis=1)
    np.testing.assert_allclose(sums.channel_sums(*jnp.asarray(maps)), expected, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_bias_has_the_sum_over_all_positions_for_a_gradient(either, dtype):
    dy = jnp.asarray(np.random.default_rng(0).normal(size=(4, 9, 9, 3)), dtype)
    pull_back = jax.vjp(sums.add_bias, jnp.zeros_like(dy), jnp.ones(3, dtype))[1]
    dx, dbias = pull_back(dy)
    np.testing.assert_array_equal(dx, dy)
    assert dbias.dtype == dtype
    expected = np.asarray(dy, np.float64).sum((0, 1, 2))
    np.testing.assert_allclose(dbias.astype("float32"), expected, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("deviations", [0, 3, 30])
def test_one_pass_batch_norm_loses_few_digits_in_the_first_step(either, deviations):
    x = np.random.default_rng(0).normal(deviations, 1, (64, 14, 14, 8)).astype(np.float32)
    y = layers.BatchNorm(8, rngs=nnx.Rngs(0))(jnp.asarray(x))
    assert np.abs(y - normalised(x)).max() < 1e-5 * (1 + deviations**2)


def test_one_pass_batch_norm_is_exact_once_the_running_mean_has_come_near(either):
    norm = layers.BatchNorm(8, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(300, 1, (16, 14, 14, 8)).astype(np.float32)
    for _ in range(60):
        y = norm(jnp.asarray(x))
    assert np.abs(y - normalised(x)).max() < 1e-4


def test_batch_norm_of_a_constant_map_is_its_bias(either):
    x = jnp.full((8, 7, 7, 2), 0.3)
    y, pull_back = jax.vjp(lambda x: layers.BatchNorm(2, rngs=nnx.Rngs(0))(x), x)
    np.testing.assert_allclose(y, 0, atol=1e-4)
    assert np.isfinite(pull_back(jnp.ones_like(x))[0]).all()


def normalised(x):
    x = x.astype(np.float64)
    return (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)


@pytest.mark.parametrize("backbone", FAMILY_PARAMS)
def test_both_formulations_agree_in_float64(backbone, small_families, monkeypatch):
    results = {}
    with jax.enable_x64(True):
        for name in ("cpu", "gpu"):
            monkeypatch.setenv(formulation.VARIABLE, name)
            results[name] = loss_and_gradients(backbone)
    scale = lambda a: max(float(np.abs(a).max()), 1e-3)
    for ours, theirs in zip(*map(jax.tree.leaves, results.values()), strict=True):
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9 * scale(theirs))


def loss_and_gradients(backbone):
    """Of LSANet, its new statistics too."""
    shape = (SIZE, SIZE, 3)
    config = model_config(backbone=backbone, dtype="float64")
    model = models.create_model(config, 3, shape, nnx.Rngs(0))
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, stats = jax.tree.map(lambda a: a.astype(np.float64), (params, stats))
    x = np.random.default_rng(0).normal(size=(2, *shape))

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(params, stats, x):
        def loss(params, x):
            model = nnx.merge(graphdef, params, stats, copy=True)
            logits, beta = model(x)
            return (logits**2).mean() + (beta**2).sum(), nnx.state(model, nnx.BatchStat)

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    return jax.device_get(run(params, stats, x))


@pytest.mark.parametrize(
    ("backbone", "dtype"),
    [
        *(pytest.param(*p.values, "float32", marks=p.marks) for p in FAMILY_PARAMS),
        pytest.param("resnet18", "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_a_step_in_the_gpus_formulation_splits_over_devices_and_is_deterministic(backbone, dtype):
    command = [sys.executable, "-m", "tests.models.test_formulation", backbone, dtype]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def check_step(backbone, dtype):
    """Compile LSANet's step for all devices, and look at what it consists of."""
    model = abstract_model(3, (SIZE, SIZE, 3), backbone=backbone, dtype=dtype)
    model.train()
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    tx, objective = optax.adam(1e-3), Objective("lsanet", (1, 2, 3, 4))
    prepare = lambda images: images.astype(jnp.float32) / 255
    step = steps.TrainStep(graphdef, tx, prepare, objective).compile(Mesh(jax.devices(), ("data",)))
    state, means = jax.eval_shape(
        lambda params, stats: (
            steps.TrainState(jnp.zeros((), jnp.int32), params, stats, tx.init(params)),
            metrics.training_means(objective.part_names).empty(),
        ),
        params,
        stats,
    )
    images = np.zeros((16, SIZE, SIZE, 3), np.uint8)
    data = images, np.zeros(16, np.int32), np.zeros((1, 8), np.int32)
    lowered = step.lower(state, means, *data)

    operations = set(re.findall(r"stablehlo\.(\w+)", lowered.as_text()))
    assert not operations & {"scatter", "select_and_scatter", "sort"}
    sums_ = re.findall(r"(?s)all_reduce.*?\}\) : \(tensor<(?:\d+x)*(\w+)>", lowered.as_text())
    assert sums_ and set(sums_) == {"f32"}  # XLA for CPU sums in 32 bits in any case
    program = lowered.compile(QUICK).as_text()
    assert "f64[" not in program
    moved = collections.Counter()
    kinds = "all-gather|all-to-all|collective-permute|reduce-scatter|all-reduce"
    for types, kind in re.findall(rf"(?m)^ +\S+ = (.*?) ({kinds})(?:-start)?\(", program):
        for name, dims in re.findall(r"(\w+)\[([\d,]*)\]", types):
            moved[kind] += BYTES[name] * math.prod(int(d) for d in dims.split(",") if d)
    assert set(moved) == {"all-reduce"}, moved
    held = sum(
        a.size * a.dtype.itemsize for a in jax.tree.leaves((state.params, state.batch_stats))
    )
    assert 0.9 < moved["all-reduce"] / held < 1.1, (moved, held)


if __name__ == "__main__":  # In a process of its own, because it needs four devices.
    jax.config.update("jax_num_cpu_devices", 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(formulation.VARIABLE, "gpu")
        shrink_families(patch)
        check_step(*sys.argv[1:])
