"""Which stage a parameter belongs to, read off the trace of the backbone."""

import collections

import jax
import numpy as np
import pytest
from flax import nnx

from lsanet_jax.models import depth
from tests.networks import TinyNet, abstract_model


def depths_of(model, shape=(64, 64, 3)):
    graphdef, params, others = nnx.split(model, nnx.Param, ...)
    return depth.depths(graphdef, params, others, shape)


@pytest.mark.parametrize(
    ("backbone", "first", "last", "transition"),
    [
        ("resnet18", "backbone/layer1/0", "backbone/layer4/0", "backbone/conv1"),
        ("vgg16", "backbone/features/1", "backbone/features", "backbone/features/0"),
        (
            "densenet121",
            "backbone/features/denseblock1",
            "backbone/features/denseblock4",
            "backbone/features/transition1",
        ),
    ],
)
def test_each_family_has_its_stages_in_order(small_families, backbone, first, last, transition):
    found = depths_of(abstract_model(backbone=backbone))
    assert set(found.values()) == {1, 2, 3, 4, 5}
    in_order = lambda prefix: {n for name, n in found.items() if name.startswith(prefix + "/")}
    assert in_order("fc") == in_order("auxiliary") == in_order("lsa") == {5}
    assert min(in_order(first)) == 1 and max(in_order(last)) == 4
    assert in_order(transition) == ({2} if "transition" in transition else {1})
    assert collections.Counter(name.split("/")[0] for name, n in found.items() if n < 5) == {
        "backbone": sum(name.startswith("backbone") for name in found)
    }


def test_a_backbone_of_ones_own_has_its_stages_and_frozen_ones_keep_their_statistics():
    from lsanet_jax.models import DeeplySupervised

    model = DeeplySupervised(TinyNet(3, nnx.Rngs(0)), 3, image_shape=(8, 8, 3), rngs=nnx.Rngs(1))
    model.train()
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    found = depth.depths(graphdef, params, stats, (8, 8, 3))
    assert {n for name, n in found.items() if "1/" in name and "backbone" in name} == {1}
    assert {n for name, n in found.items() if "2/" in name and "backbone" in name} == {2}
    kept = frozenset(name for name, n in found.items() if n == 1)
    held = depth.in_evaluation_mode(graphdef, params, stats, kept)
    network = nnx.merge(held, params, stats, copy=True)
    network(jax.random.normal(jax.random.key(0), (4, 8, 8, 3)))
    moved = lambda name: (
        not np.array_equal(
            getattr(network.backbone, name).mean[...], getattr(model.backbone, name).mean[...]
        )
    )
    assert (moved("bn1"), moved("bn2")) == (False, True)
