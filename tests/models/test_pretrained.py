"""Weights in and out: names, layouts, strictness, and what is left as it was initialised."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from flax import nnx

from configs import quickstart
from lsanet_jax import audit, export, models, train
from lsanet_jax.errors import DataError, WorkdirError
from lsanet_jax.models import pretrained
from lsanet_jax.runs import trained as inference
from tests.networks import abstract_model, filled_like, model_config
from tests.sealed import as_earlier_version, as_unfinished

FAMILIES = ["resnet18", "resnext50", "vgg16", "densenet121"]


def make(backbone="resnet18", channels=3, classes=7, **overrides):
    config = model_config(backbone=backbone, **{"objective": "baseline", **overrides})
    return models.create_model(config, classes, (32, 32, channels), nnx.Rngs(0))


def write(tensors, file):
    safetensors.numpy.save_file({k: np.float32(v) for k, v in tensors.items()}, file)
    return file


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
    model = make()
    tensors = filled_like(model, 0)
    with pytest.raises(DataError, match="fc.bias"):
        pretrained.load_torchvision(model, {k: v for k, v in tensors.items() if k != "fc.bias"})
    with pytest.raises(DataError, match=r"fc.bias has shape \(8,\).*expected \(7,\)"):
        pretrained.load_torchvision(model, tensors | {"fc.bias": np.zeros(8)})


@pytest.mark.parametrize("backbone", FAMILIES)
def test_weights_go_through_unchanged(backbone, small_families):
    model = make(backbone)
    tensors = {k: v.astype(np.float32) for k, v in filled_like(model, 3).items()}
    tensors["bn1.num_batches_tracked"] = np.int64(7)
    pretrained.load_torchvision(model, tensors)
    out = pretrained.torchvision_tensors(model)
    assert out.keys() == tensors.keys() - {"bn1.num_batches_tracked"}
    for name, tensor in out.items():
        np.testing.assert_array_equal(tensor, tensors[name], strict=True)


def test_a_network_starts_from_a_file(tmp_path, small_families):
    model = make(objective="lsanet")
    tensors = filled_like(model, 3)
    auxiliary = np.asarray(model.auxiliary[0].kernel[...])
    assert pretrained.init_from(model, write(tensors, tmp_path / "w.safetensors")) == []
    assert_holds(model, tensors)
    np.testing.assert_array_equal(model.auxiliary[0].kernel[...], auxiliary)


def assert_holds(model, tensors):
    for name, value in pretrained.torchvision_tensors(model).items():
        np.testing.assert_array_equal(value, np.float32(tensors[name]))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("conv1.weight", np.nan, "conv1.weight holds nan, expected finite numbers"),
        ("conv1.weight", 1e39, "conv1.weight holds 1e.39, expected finite numbers of type float32"),
        ("bn1.running_var", -1.0, "bn1.running_var holds -1.0, expected variances"),
        ("bn1.bias", np.int8, "bn1.bias is of type int8, expected floating point numbers"),
        ("bn1.bias", bool, "bn1.bias is of type bool, expected floating point numbers"),
    ],
)
def test_values_that_no_network_has_are_refused(small_families, name, value, message):
    model = make()
    tensors = {k: v.astype(np.float32) for k, v in filled_like(model, 1).items()}
    if isinstance(value, type):
        tensors[name] = tensors[name].astype(value)
    else:
        tensors[name] = np.full(tensors[name].shape, value)
    before = pretrained.torchvision_tensors(model)
    with pytest.raises(DataError, match=f"w.safetensors: {message}"):
        pretrained.start_from(model, tensors, source="w.safetensors")
    assert_holds(model, before)


def test_a_type_that_numpy_lacks_is_named(tmp_path):
    header = b'{"w":{"dtype":"F8_E5M2","shape":[1],"data_offsets":[0,1]}}'
    file = tmp_path / "w.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"0")
    with pytest.raises(DataError, match="type that cannot be read.*convert them to float32"):
        pretrained.read_safetensors(file)


def test_a_classifier_without_its_bias_is_left_and_the_tensor_named(small_families):
    model = make()
    tensors = filled_like(model, 1)
    del tensors["fc.bias"]
    (note,) = pretrained.start_from(model, tensors, source="w")
    assert note == "the classifier is new: of w, fc.bias is missing there, (7,) here"


@pytest.mark.parametrize("backbone", ["resnet18", "vgg16"])
def test_a_classifier_of_other_classes_is_left_and_said_so(tmp_path, small_families, backbone):
    model = make(backbone, classes=5)
    before = np.asarray(model.fc.kernel[...])
    tensors = filled_like(make(backbone, classes=7), 3)
    file = write(tensors, tmp_path / "w.safetensors")
    (note,) = pretrained.init_from(model, file)
    assert note == f"the classifier is new: {file} has one of 7 classes, this network 5 classes"
    np.testing.assert_array_equal(model.fc.kernel[...], before)
    name = next(iter(tensors))
    np.testing.assert_array_equal(
        pretrained.torchvision_tensors(model)[name], np.float32(tensors[name])
    )


def test_torchvisions_own_vgg_file_gives_its_features(tmp_path, small_families):
    model = make("vgg16")
    tensors = {k: v for k, v in filled_like(model, 3).items() if k.startswith("features.")}
    tensors |= {f"classifier.{i}.weight": np.zeros((8, 8)) for i in (0, 3, 6)}
    (note,) = pretrained.init_from(model, write(tensors, tmp_path / "w.safetensors"))
    assert "no classifier of one layer" in note


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [*FAMILIES, "wrn50"])
def test_a_file_of_imagenets_shapes_loads_into_every_family(tmp_path, backbone):
    tensors = filled_like(make(backbone, classes=1000), 3)
    if backbone == "vgg16":  # as timm has it: a convolution in front of the classifier
        tensors = {k: v for k, v in tensors.items() if k.startswith("features.")}
        tensors |= {"pre_logits.fc1.weight": np.zeros((8, 512, 7, 7)), "head.fc.bias": np.zeros(9)}
    model = make(backbone, classes=7, objective="lsanet")
    (note,) = pretrained.init_from(model, write(tensors, tmp_path / "w.safetensors"))
    assert note.startswith("the classifier is new")
    found = pretrained.torchvision_tensors(model)
    prefix = pretrained.classifier_name(model) + "."
    for name in tensors.keys() & found.keys():
        same = np.array_equal(found[name], np.float32(tensors[name]))
        assert same != name.startswith(prefix), name


def test_a_file_without_attention_leaves_the_modules_new(tmp_path, small_families):
    tensors = filled_like(make(), 3)
    model = make(attention="se")
    (note,) = pretrained.init_from(model, write(tensors, tmp_path / "w.safetensors"))
    assert note.startswith("the attention modules are new")
    found = pretrained.torchvision_tensors(model)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], np.float32(tensor))
    assert all(".attention." in name for name in found.keys() - tensors.keys())


def test_a_grey_stem_sums_the_kernel_over_rgb(tmp_path, small_families):
    rgb, grey = make(), make(channels=1)
    tensors = filled_like(rgb, 3)
    pretrained.init_from(grey, write(tensors, tmp_path / "w.safetensors"))
    pretrained.load_torchvision(rgb, tensors)
    x = jax.random.normal(jax.random.key(0), (2, 32, 32, 1))
    rgb.eval(), grey.eval()
    np.testing.assert_allclose(grey.predict(x), rgb.predict(jnp.tile(x, 3)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("layer1.0.bn1.weight"), r"1 tensors \(layer1\.0\.bn1\.weight\) missing"),
        (lambda t: t.update(extra=np.zeros(2)), r"1 tensors \(extra\) unexpected"),
        (
            lambda t: t.update({"conv1.weight": np.zeros((64, 3, 3, 3))}),
            r"conv1\.weight has shape \(64, 3, 3, 3\), expected \(64, 3, 7, 7\)",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_nothing_is_set(
    tmp_path, small_families, change, message
):
    model = make()
    before = pretrained.torchvision_tensors(model)
    tensors = filled_like(model, 3)
    change(tensors)
    with pytest.raises(DataError, match=rf"w\.safetensors does not fit the network: .*{message}"):
        pretrained.start_from(model, tensors, source="w.safetensors")
    assert_holds(model, before)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        pretrained.read_safetensors(tmp_path / "none.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    write({"a": np.zeros(100)}, damaged)
    damaged.write_bytes(damaged.read_bytes()[:-8])
    for file in (damaged, tmp_path):
        with pytest.raises(DataError, match="is not a readable safetensors file"):
            pretrained.read_safetensors(file)


def test_a_pickle_is_refused_with_the_line_that_converts_it(tmp_path):
    torch = pytest.importorskip("torch")
    import shlex
    import subprocess
    import sys

    file = tmp_path / "weights.pth"
    torch.save({"a": torch.arange(6.0).reshape(2, 3).T}, file)
    with pytest.raises(DataError, match="is a pickle") as error:
        pretrained.read_safetensors(file)
    _, *arguments = shlex.split(str(error.value).partition("PyTorch: ")[2])
    subprocess.run([sys.executable, *arguments], check=True)
    (tensor,) = pretrained.read_safetensors(tmp_path / "weights.safetensors").values()
    np.testing.assert_array_equal(tensor, np.arange(6.0).reshape(2, 3).T)


@pytest.mark.parametrize("checkpoint", ["selected", "last"])
def test_a_run_is_exported_and_comes_back(run, checkpoint, tmp_path):
    config, path = run
    file = export.export(path, tmp_path / "x.safetensors", checkpoint)
    trained = inference.load(path, checkpoint)
    result = json.loads((path / "result.json").read_text())
    assert trained.epoch == {"selected": result["best_epoch"], "last": 2}[checkpoint]
    with safetensors.safe_open(file, "numpy") as stream:
        metadata = {k: v if k == "format" else json.loads(v) for k, v in stream.metadata().items()}
    assert metadata["format"] == "pt"
    assert len(metadata["classes"]) == 3
    assert metadata["image_size"] == [28, 28]
    assert (metadata["task"], metadata["mean"], metadata["std"]) == ("multi-class", [0.5], [0.5])

    model = models.create_model(config.model, 3, (28, 28, 3), nnx.Rngs(1))
    assert pretrained.init_from(model, file) == []
    model.eval()
    x = jax.random.normal(jax.random.key(0), (2, 28, 28, 3))
    np.testing.assert_array_equal(model.predict(x), trained.model.predict(x))


def test_another_epoch_than_the_selected_is_not_taken_for_it(run, tmp_path):
    path = shutil.copytree(run[1], tmp_path / "run")
    as_earlier_version(path)
    for place in (path / "checkpoints/best").iterdir():
        shutil.rmtree(place)
    epoch = json.loads((path / "result.json").read_text())["last_epoch"]["epoch"]
    result = json.loads((path / "result.json").read_text()) | {"best_epoch": epoch}
    (path / "result.json").write_text(json.dumps(result))
    assert inference.load(path).epoch == epoch  # the last one is the selected
    result["best_epoch"] = epoch - 1
    (path / "result.json").write_text(json.dumps(result))
    with pytest.raises(WorkdirError, match=r"no checkpoint of epoch 1, which .*best/1 .*=last"):
        inference.load(path)
    assert inference.load(path, "last").epoch == epoch


def test_a_run_that_began_with_weights_resumes_without_them(run, tmp_path):
    config = run[0].copy_and_resolve_references()
    file = export.export(run[1], tmp_path / "w.safetensors")
    config.model.init_from = str(file)
    path, weights = tmp_path / "run", file.read_bytes()
    train.train_and_evaluate(config, path, epochs=1)
    assert audit.audit(path)["identical"]
    file.write_bytes(weights[:-4] + bytes(4))  # another number
    with pytest.raises(WorkdirError, match="is not the file of weights that it began with"):
        audit.audit(path)
    file.unlink()
    assert train.train_and_evaluate(config, path)["last_epoch"]["epoch"] == 2
    file.write_bytes(weights)
    assert audit.audit(path)["identical"]

    as_unfinished(path)
    shutil.rmtree(path / "checkpoints")  # as if it was lost before its first checkpoint
    file.write_bytes(weights[:-4] + bytes(4))
    with pytest.raises(WorkdirError, match="holds a run that began with other weights"):
        train.train_and_evaluate(config, path)


def test_export_says_what_is_missing(run, tmp_path):
    _, path = run
    with pytest.raises(WorkdirError, match="holds no run: config.json is missing"):
        export.export(tmp_path)
    (tmp_path / "nowhere").touch()
    with pytest.raises(WorkdirError, match="cannot write .*nowhere is not a folder"):
        export.export(path, tmp_path / "nowhere/x.safetensors")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    for name in ("config.json", "manifest.json"):
        (unfinished / name).write_bytes((path / name).read_bytes())
    with pytest.raises(WorkdirError, match="the run is not finished.*--checkpoint=last"):
        export.export(unfinished)
    with pytest.raises(WorkdirError, match="no checkpoint yet"):
        export.export(unfinished, checkpoint="last")


@pytest.mark.parametrize("backbone", FAMILIES[1:])
def test_pytorch_loads_the_exported_tensors_and_agrees(backbone, small_families):
    torch = pytest.importorskip("torch")
    from tests import torch_zoo

    peer = {
        "resnext50": lambda: torch_zoo.ResNet((1, 1, 1, 1), 7, groups=32, base_width=4),
        "vgg16": lambda: torch_zoo.VGG((1, 1, 2, 1, 1), 7),
        "densenet121": lambda: torch_zoo.DenseNet((2, 1, 1, 2), 7),
    }[backbone]().eval()
    model = make(backbone)
    pretrained.load_torchvision(model, filled_like(model, 5))
    model.eval()
    tensors = pretrained.torchvision_tensors(model)
    peer.load_state_dict({k: torch.tensor(v) for k, v in tensors.items()}, strict=True)
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        expected = peer(torch.tensor(x))[0].numpy()
    logits = model.predict(jnp.asarray(x.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_pytorch_loads_the_exported_file_of_a_run_and_agrees(small_families, tmp_path):
    torch = pytest.importorskip("torch")
    import safetensors.torch

    from tests import torch_zoo

    config = quickstart.get_config()
    config.model.backbone = "resnext50"
    config.data.size = config.data.image_size = 32
    config.data.synthetic.update(num_train=16, num_val=8, num_test=8, num_classes=3)
    config.train.update(epochs=1, batch_size=8)
    train.train_and_evaluate(config, tmp_path / "run")
    file = export.export(tmp_path / "run")
    peer = torch_zoo.ResNet((1, 1, 1, 1), 3, groups=32, base_width=4).eval()
    peer.load_state_dict(safetensors.torch.load_file(file), strict=True)
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        expected = peer(torch.tensor(x))[0].numpy()
    logits = inference.load(tmp_path / "run").model.predict(jnp.asarray(x.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_a_classifier_without_a_shape_is_none(small_families):
    model = make()
    tensors = filled_like(model, 3) | {"fc.weight": np.float32(1)}
    notes = pretrained.start_from(model, tensors, source="it")
    assert "it has no classifier of one layer" in notes[0]
