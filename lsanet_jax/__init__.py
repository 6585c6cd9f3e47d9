"""LSANet: deeply supervised training of CNN classifiers from few labels, in JAX and Flax.

```python
import lsanet_jax as lsa

config = lsa.default_config()
config.model.backbone = "resnet18"
data = lsa.Dataset.from_arrays(train=(images, labels), val=(...), test=(...), class_names=[...])
run = lsa.fit(config, data, workdir="runs/mine")
run.result["test"]["auc"]
run.predict(new_images)  # probabilities [n, classes]
lsa.load_run("runs/mine").predict(new_images)
```

The names load what they need on first use, so that importing the package takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lsanet_jax import losses as losses
    from lsanet_jax.config import default_config as default_config
    from lsanet_jax.config import load as load_config
    from lsanet_jax.data import load as load_data
    from lsanet_jax.data.dataset import Dataset as Dataset
    from lsanet_jax.data.dataset import Split as Split
    from lsanet_jax.errors import LSANetError as LSANetError
    from lsanet_jax.models import create_model as create_model
    from lsanet_jax.models.lsa import FeatureEmbedding as FeatureEmbedding
    from lsanet_jax.models.lsa import LayerSelectiveAttention as LayerSelectiveAttention
    from lsanet_jax.models.supervised import DeeplySupervised as DeeplySupervised
    from lsanet_jax.runs.trained import Run as Run
    from lsanet_jax.runs.trained import load_run as load_run
    from lsanet_jax.train import fit as fit

# Where each public name is defined: MODULE, or MODULE:NAME if it has another name there.
_PUBLIC = {
    "Dataset": "lsanet_jax.data.dataset",
    "DeeplySupervised": "lsanet_jax.models.supervised",
    "FeatureEmbedding": "lsanet_jax.models.lsa",
    "LSANetError": "lsanet_jax.errors",
    "LayerSelectiveAttention": "lsanet_jax.models.lsa",
    "Run": "lsanet_jax.runs.trained",
    "Split": "lsanet_jax.data.dataset",
    "create_model": "lsanet_jax.models",
    "default_config": "lsanet_jax.config",
    "fit": "lsanet_jax.train",
    "load_config": "lsanet_jax.config:load",
    "load_data": "lsanet_jax.data:load",
    "load_run": "lsanet_jax.runs.trained",
    "losses": "lsanet_jax.losses:",
}

__all__ = [
    "Dataset",
    "DeeplySupervised",
    "FeatureEmbedding",
    "LSANetError",
    "LayerSelectiveAttention",
    "Run",
    "Split",
    "__version__",
    "create_model",
    "default_config",
    "fit",
    "load_config",
    "load_data",
    "load_run",
    "losses",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, colon, attribute = _PUBLIC[name].partition(":")
    found = importlib.import_module(module)
    if not colon or attribute:
        found = getattr(found, attribute or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
