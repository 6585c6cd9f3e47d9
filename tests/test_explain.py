"""Heat maps beside an independent PyTorch implementation; pictures at their own size."""

import logging
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from lsanet_jax import explain, models
from lsanet_jax.errors import ConfigError
from lsanet_jax.models import pretrained
from lsanet_jax.runs import trained
from tests.networks import filled_like, model_config


def test_grad_cam_is_that_of_pytorch(monkeypatch):
    torch = pytest.importorskip("torch")
    from lsanet_jax.models import resnet
    from tests import torch_zoo

    spec = resnet.Spec(resnet.Bottleneck, (1, 1, 1, 1))
    monkeypatch.setitem(resnet.SPECS, "resnet50", spec)
    config = model_config(backbone="resnet50", objective="dsn")
    model = models.create_model(config, 5, (64, 64, 3), nnx.Rngs(0))
    model.eval()
    tensors = filled_like(model, seed=1)
    pretrained.load_torchvision(model, tensors)
    x = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    classes = jnp.array([3, 1])
    heats, logits = jax.jit(lambda x: explain.grad_cam(model, x, classes))(x)

    other = torch_zoo.ResNet((1, 1, 1, 1), 5)
    state = {k: torch.tensor(np.asarray(v, np.float32)) for k, v in tensors.items()}
    other.load_state_dict(state, strict=False)
    other.eval()
    own, taps = other(torch.tensor(x.transpose(0, 3, 1, 2)))
    for tap in taps:
        tap.retain_grad()
    np.testing.assert_allclose(logits, own.detach(), atol=1e-4)
    heads = []
    for head, tap in zip(model.auxiliary, taps, strict=False):
        weight, bias = (torch.tensor(np.asarray(p[...])) for p in (head.kernel, head.bias))
        heads.append(tap.mean((2, 3)) @ weight + bias)
    for i, scores in enumerate([*heads, own]):
        for tap in taps:
            tap.grad = None
        (scores[0, 3] + scores[1, 1]).backward(retain_graph=True)
        for j, tap in enumerate(taps):
            if j > i:
                assert heats[i][j] is None
                continue
            weights = tap.grad.mean((2, 3), keepdim=True)
            expected = torch.relu((weights * tap).sum(1)).detach()
            expected = expected / expected.amax((1, 2), keepdim=True).clamp(min=1e-12)
            np.testing.assert_allclose(heats[i][j], expected, atol=1e-4)


def test_the_forward_pass_gives_the_last_heat_map_and_shuffled_weights_another(run):
    network = trained.load(run[1])
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), np.uint8)
    images = images[..., : network.dataset["stored_shape"][2]]
    classes = np.array([0, 1, 2, 0])
    heats, _ = explain.explainer(network)(images, classes)
    assert heats[-1][-1].min() >= 0 and heats[-1][-1].max() <= 1
    assert [[h is None for h in row] for row in heats] == [[False, True], [False, False]]
    quick = explain.class_heat(network, images, classes)
    np.testing.assert_allclose(quick, heats[-1][-1], atol=1e-5)
    mixed = network._replace(model=explain.shuffled(network.model))
    other, _ = explain.explainer(mixed)(images, classes)
    assert explain.correlation(heats[-1][-1], heats[-1][-1]) == pytest.approx(1)
    assert explain.correlation(heats[-1][-1], other[-1][-1]) < 0.9


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_a_heat_map_lies_where_its_part_of_the_picture_was(fit):
    heat = np.zeros((4, 4), np.float32)
    heat[:2, 2:] = 1  # The upper right quarter of the square.
    found = explain.over_picture(heat, (40, 20), fit)  # 40 wide, 20 high
    assert found.shape == (20, 40)
    inside = {"squash": (0, 10, 20, 40), "pad": (0, 10, 20, 40), "crop": (0, 10, 20, 30)}[fit]
    top, bottom, left, right = inside
    centre = found[(top + bottom) // 2 - 1, (left + right) // 2]
    assert centre > 0.9
    assert found[-1, 0] == 0 and found[bottom + 6 :, :].max() < 0.1
    if fit == "crop":
        assert found[:, :10].max() == 0 and found[:, 30:].max() == 0
    picture = np.full((20, 40, 3), 100, np.uint8)
    shown = explain.overlay(picture, found)
    assert (shown[-1, 0] == 100).all() and (shown != 100).any()


def test_of_padded_images_the_border_is_cut_off_the_map():
    data = types.SimpleNamespace(resize="pad", image_size=224)
    trained = types.SimpleNamespace(
        config=types.SimpleNamespace(data=data), dataset={"stored_shape": [28, 28, 3]}
    )
    heat = np.zeros((7, 7), np.float32)
    heat[3, 3] = 1  # of pixels 96 to 127; the picture is 98 to 125
    cut = explain.without_border(heat, trained)
    assert cut.shape == (28, 28) and cut.min() > 0.2 and cut.max() > 0.9
    data.resize = "bicubic"
    assert explain.without_border(heat, trained) is heat


def test_pictures_are_explained_at_their_own_size(run, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        pixels = rng.integers(0, 256, (50, 60, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"images/{i}.png")
    folder = explain.explain(run[1], input=str(tmp_path / "images"), output=str(tmp_path / "out"))
    assert "heat maps correlate" in caplog.text
    sheets = [file for file in folder.iterdir() if file.name.startswith("sheet_")]
    pictures = [file for file in folder.iterdir() if file not in sheets]
    assert len(pictures) == 3 and sheets
    with Image.open(pictures[0]) as image:  # the picture and two heat maps, in two rows
        assert image.size == (3 * 60 + 2 * 6, 2 * 50 + 6)
    for wrong, message in (({"target": "x"}, "--target=x"), ({"per_class": 0}, "--per_class=0")):
        with pytest.raises(ConfigError, match=message):
            explain.explain(run[1], **wrong)


def test_of_several_labels_each_that_is_predicted_is_explained(monkeypatch):
    said = np.array([[[0.9, 0.8, 0.1], [0.2, 0.4, 0.3], [0.1, 0.7, 0.6], [0.6, 0.1, 0.2]]])
    monkeypatch.setattr(explain.predict, "predict", lambda *_, **__: (said, None))
    of = lambda task: types.SimpleNamespace(dataset={"class_names": ["a", "b", "c"], "task": task})
    source = types.SimpleNamespace(sound=lambda: [0, 1, 2, 3])
    chosen, classes, kinds = explain._choose(of("multi-label"), source, 2, None)
    assert list(zip(chosen, classes, kinds, strict=True)) == [
        *((0, 0, "a"), (3, 0, "a"), (0, 1, "b"), (2, 1, "b"), (2, 2, "c")),
        (1, 1, "none"),  # for its likeliest
    ]
    chosen, classes, kinds = explain._choose(of("multi-class"), source, 8, "c")
    assert chosen.tolist() == [0, 3, 1, 2] and kinds == ["a", "a", "b", "b"]
    assert set(classes) == {2}


def test_names_of_pictures_are_those_of_their_files_and_differ():
    assert explain._stem("nv/ISIC_1.JPG") == "nv_ISIC_1"
    assert explain._stem("1.2.840.113") == "1.2.840.113"
    assert explain.unused("nv_a", {"nv_a", "nv_a_2"}) == "nv_a_3"
    assert explain.unused("nv_A", {"nv_a"}) == "nv_A_2"  # one file on some disks
    assert explain.unused("nv_a", set()) == "nv_a"
