# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # A quarter of the labels
#
# Does deep supervision pay when labels are few? We train the plain network and LSANet on the same
# quarter of a training set, and compare them on the same test set. The set is synthetic: stained
# cells in four classes. Everything runs offline, in a few minutes on a CPU.

# %%
import os
import pathlib
import tempfile

import lsanet_jax as lsa

WORKDIR = pathlib.Path(tempfile.mkdtemp())
EPOCHS = int(os.environ.get("EPOCHS", "16"))  # EPOCHS=1 python examples/few_labels.py: a quick look
SEEDS = (0,)  # three or more for a real comparison: see the end

# %% [markdown]
# ## The data
#
# `train_fraction` keeps a quarter of each class. Validation and test splits stay whole. The subset
# depends on the seed only, so both methods see the same images.


# %%
def make_config(objective, seed):
    """Describe a small run, at 64 pixels."""
    config = lsa.default_config()
    config.seed = seed
    config.data.size = config.data.image_size = 64
    config.data.synthetic.num_val = 128
    config.data.train_fraction = 0.25
    config.model.objective = objective
    config.train.epochs = EPOCHS
    config.train.batch_size = 32
    return config


data = lsa.load_data(make_config("baseline", seed=0).data)
print(
    f"{len(data.train)} training images, {len(data.test)} test images, classes {data.class_names}"
)

# %% [markdown]
# ## Training
#
# The baseline has one classifier, at the end of the network. LSANet has one after each of the four
# stages while it trains, and weights them sample by sample.

# %%
results = {}
for seed in SEEDS:
    for objective in ("baseline", "lsanet"):
        config = make_config(objective, seed)
        data = lsa.load_data(config.data, seed)
        run = lsa.fit(config, data, workdir=WORKDIR / f"{objective}-{seed}")
        results[objective, seed] = run.result

# %% [markdown]
# ## Comparison
#
# ACC and AUC on the test split, at the epoch with the best validation AUC.

# %%
print("method    seed    ACC    AUC")
for (objective, seed), result in results.items():
    test = result["test"]
    print(f"{objective:8}  {seed:4}  {100 * test['acc']:5.1f}  {100 * test['auc']:5.1f}")

# %% [markdown]
# How much does each classifier count, on average, in LSANet's loss?

# %%
lsanet = results["lsanet", SEEDS[0]]
for classifier, beta in zip(lsanet["classifiers"], lsanet["beta"], strict=True):
    print(f"stage {classifier['stage']}: beta {beta:.2f}, AUC {100 * classifier['auc']:.1f}")

# %% [markdown]
# One seed and 256 test images prove nothing: repeat it with `SEEDS = (0, 1, 2)` and see whether
# the difference is larger than the spread between seeds. On your own images, set
# `config.data.name = "folder"` and `config.data.path`. The command `lsanet sweep
# --sweep=label_efficiency` does the whole study.
