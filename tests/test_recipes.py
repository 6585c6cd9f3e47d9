"""The shipped recipes for pretrained weights train. Slow: whole networks."""

import pytest
import safetensors.numpy
from flax import nnx

from lsanet_jax import config as config_lib
from lsanet_jax import models, train
from lsanet_jax.models import pretrained


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """ImageNet's shapes, and what a ResNet-18 is initialised with."""
    config = config_lib.default_config().model
    config.objective = "baseline"
    model = models.create_model(config, 1000, (64, 64, 3), nnx.Rngs(0))
    file = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    metadata = {"mean": "[0.485, 0.456, 0.406]", "std": "[0.229, 0.224, 0.225]"}
    safetensors.numpy.save_file(pretrained.torchvision_tensors(model), file, metadata=metadata)
    return file


@pytest.mark.slow
@pytest.mark.parametrize("name", ["finetune", "linear_probe", "medmnistplus"])
def test_a_recipe_trains_at_64_pixels(name, weights, tmp_path):
    config = config_lib.load(name)
    config.data.update(name="synthetic", size=28, image_size=64)
    config.data.synthetic.update(num_train=64, num_val=32, num_test=32, num_classes=2)
    config.data.train_per_class = 16
    config.model.init_from = str(weights)
    config.train.update(epochs=2, batch_size=16, warmup_epochs=0.0)
    config.eval.batch_size = 64
    result = train.train_and_evaluate(config, tmp_path / "run")
    assert 0.3 < result["test"]["auc"] <= 1
    assert result["objective"] == ("lsanet" if name == "finetune" else "baseline")
