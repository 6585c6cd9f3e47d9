"""Programs of a run's network for ONNX and StableHLO, beside what predict gives."""

import json

import jax
import numpy as np
import pytest
from flax import nnx

from lsanet_jax import data, export, models
from lsanet_jax.errors import ConfigError
from lsanet_jax.evaluation import decisions
from lsanet_jax.runs import calibrated
from lsanet_jax.runs.trained import TrainedModel
from tests.networks import model_config

CASES = {
    "resnet18": {"attention": "se"},
    "resnext50": {"attention": "cbam"},
    "wrn50": {"attention": "eca", "stem": "small"},
    "vgg16": {"attention": "srm"},
    "densenet121": {"attention": "simam"},
}


def predicted(path, images):
    from lsanet_jax.runs import trained

    raw = np.asarray(trained.load(path).predictor()(images)[0])
    return decisions.calibrated(calibrated.read_calibration(path), raw)[-1]


def test_stablehlo_predicts_as_the_run_for_any_number_of_images(run, tmp_path, caplog):
    config, path = run
    caplog.set_level("INFO")
    file = export.export(path, tmp_path / "m.stablehlo", format="stablehlo", sensitivity=0.9)
    assert "differs from predict by" in caplog.text and "on 20 test images" in caplog.text
    images = np.asarray(data.load(config.data, config.seed).test.images)
    program = jax.export.deserialize(bytearray(file.read_bytes()))
    for n in (3, 20):
        found = np.asarray(program.call(images[:n]))
        np.testing.assert_allclose(found, predicted(path, images[:n]), atol=1e-5)
    metadata = json.loads((tmp_path / "m.stablehlo.json").read_text())
    assert metadata["rule"] == {"name": "sensitivity", "value": 0.9}
    assert len(metadata["run_sha256"]) == 64 and metadata["stored_size"] == [28, 28]
    assert [point["class"] for point in metadata["operating_points"]] == metadata["classes"]


def test_an_export_that_fails_its_trial_is_not_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    file = tmp_path / "m.stablehlo"
    file.write_text("of yesterday")
    with pytest.raises(ConfigError, match="m.stablehlo was not written: it would differ"):
        export.export(run[1], file, format="stablehlo")
    assert [(f, f.read_text()) for f in tmp_path.iterdir()] == [(file, "of yesterday")]


def test_onnx_predicts_as_the_run_for_any_number_of_images(run, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    config, path = run
    file = export.export(path, tmp_path / "m.onnx", format="onnx")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    images = np.asarray(data.load(config.data, config.seed).test.images)
    for n in (3, 20):
        (found,) = session.run(None, {"images": images[:n]})
        np.testing.assert_allclose(found, predicted(path, images[:n]), atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert (
        json.loads(metadata["classes"])
        == json.loads((path / "manifest.json").read_text())["dataset"]["class_names"]
    )


@pytest.mark.parametrize(
    ("backbone", "resize"),
    [
        ("resnet18", "nearest"),
        ("vgg16", "bicubic"),
        pytest.param("resnext50", "nearest", marks=pytest.mark.slow),
        pytest.param("wrn50", "bilinear", marks=pytest.mark.slow),
        pytest.param("densenet121", "nearest", marks=pytest.mark.slow),
    ],
)
def test_onnx_writes_each_family_attention_and_resizing(backbone, resize, small_families):
    onnxruntime = pytest.importorskip("onnxruntime")
    from lsanet_jax import onnx_graph
    from lsanet_jax.config import default_config

    config = default_config()
    config.model.update(backbone=backbone, objective="baseline", **CASES[backbone])
    config.data.update(size=28, image_size=32, resize=resize)
    multilabel = backbone == "vgg16"
    dataset = {
        "class_names": ["a", "b", "c"],
        "task": "multi-label" if multilabel else "multi-class",
        "stored_shape": [28, 28, 1 if multilabel else 3],
        "image_shape": [32, 32, 3],
    }
    model = models.create_model(config.model, 3, (32, 32, 3), nnx.Rngs(0))
    model.eval()
    trained = TrainedModel(model, config, dataset, 1)
    with export.plain_formulation():
        written = onnx_graph.write(*export.inference_program(trained, None), "x", "y")
    session = onnxruntime.InferenceSession(
        written.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    images = np.random.default_rng(0).integers(0, 256, (4, *dataset["stored_shape"]), np.uint8)
    expected = np.asarray(trained.predictor()(images)[0][-1])
    np.testing.assert_allclose(session.run(None, {"x": images})[0], expected, atol=1e-5)
    assert session.run(None, {"x": images[:1]})[0].shape == (1, 3)


def test_what_onnx_cannot_hold_is_named():
    pytest.importorskip("onnx")
    from lsanet_jax import onnx_graph

    spec = jax.ShapeDtypeStruct((4,), np.float32)
    with pytest.raises(ConfigError, match="the network uses sort.*--format=stablehlo"):
        onnx_graph.write(jax.numpy.sort, spec, "x", "y")


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [b for b in models.BACKBONES if not b.endswith("101")])
def test_exports_of_whole_backbones_on_real_images(shared, backbone):
    onnxruntime = pytest.importorskip("onnxruntime")
    from lsanet_jax import onnx_graph

    with np.load(shared / "data/retinamnist.npz") as arrays:
        images = arrays["test_images"][:64]
    config = model_config(backbone=backbone, objective="baseline")
    from lsanet_jax.config import default_config

    whole = default_config()
    whole.model.update(backbone=backbone, objective="baseline")
    whole.data.update(size=28, image_size=64)
    model = models.create_model(config, 5, (64, 64, 3), nnx.Rngs(0))
    model.eval()
    dataset = {"task": "multi-class", "stored_shape": [28, 28, 3], "class_names": list("abcde")}
    trained = TrainedModel(model, whole, dataset, 1)
    with export.plain_formulation():
        written = onnx_graph.write(*export.inference_program(trained, None), "x", "y")
        _, stablehlo = export._stablehlo(export.inference_program(trained, None))
    session = onnxruntime.InferenceSession(
        written.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = np.asarray(trained.predictor()(images)[0][-1])
    for name, found in (
        ("onnx", session.run(None, {"x": images})[0]),
        ("stablehlo", stablehlo(images)),
    ):
        difference = np.abs(np.asarray(found) - expected).max()
        print(f"{backbone}, {name}: {difference:.1e}")
        assert difference < 1e-4
