"""The files in the folder of a run: every name, once.

| file | what |
|---|---|
| `config.json` | every field of the run's config, by its dotted name |
| `manifest.json` | its data, environment and config, as they were when it began |
| `environments.jsonl` | the environments in which it was resumed, if they differ |
| `metrics.jsonl` | a line per epoch: means of the losses, training accuracy, validation scores |
| `digests.jsonl` | a line per epoch, then one per evaluation on the test split: see `chain` |
| `checkpoints/` | Orbax: `last/STEP` to resume from, `best/EPOCH` the best parameters |
| `tensorboard/` | events |
| `predictions.npz` | what every classifier says of the test split |
| `result.json` | the scores; a run that has it is finished |
| `seal.json` | the SHA-256 of all these, written last: see `seal` |
| `lock` | held by the process that trains |
"""

CONFIG = "config.json"
MANIFEST = "manifest.json"
ENVIRONMENTS = "environments.jsonl"
METRICS = "metrics.jsonl"
DIGESTS = "digests.jsonl"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
PREDICTIONS = "predictions.npz"
RESULT = "result.json"
SEAL = "seal.json"
LOCK = "lock"
