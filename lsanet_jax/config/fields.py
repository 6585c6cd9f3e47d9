"""Every field of a config, once: default, allowed values, meaning, source.

The defaults, the checks, `lsanet train --help` and docs/fields.md come from `FIELDS`.

The names of backbones, objectives and the like are repeated here, because the modules that
implement them take seconds to import and a config should not; a test holds the two together.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Value = bool | int | float | str | tuple


class Rule(NamedTuple):
    """A condition on a value, and how to say it after "must be"."""

    words: str
    holds: Callable[[Any], bool]


class Field(NamedTuple):
    """One field; its type is that of its default.

    Attributes:
        name: dotted, such as "model.lsa.kind".
        default: the value in `default_config()`.
        meaning: what it says, with its unit; a sentence for --help and the documentation.
        choices: values that are allowed.
        rule: what allows others; with neither choices nor a rule, every value of the type is.
        source: of the default: "P", "M" (see `SOURCES`), or "" for our own.
        may_change: whether a run may be resumed with another value: where things lie, and how often
            they are written, but nothing that changes the result.
    """

    name: str
    default: Value
    meaning: str
    choices: tuple = ()
    rule: Rule | None = None
    source: str = ""
    may_change: bool = False

    @property
    def type(self) -> type:
        """The type that a value must have; a float field also takes integers."""
        return type(self.default)

    @property
    def allowed(self) -> str:
        """The choices and the rule in words; empty if every value of the type is allowed."""
        choices = ", ".join(str(choice) or '""' for choice in self.choices)
        return " or ".join(filter(None, (choices, self.rule.words if self.rule else "")))

    def allows(self, value: Any) -> bool:
        """Whether a value of the right type is allowed."""
        anything = not self.choices and self.rule is None
        return (
            anything or value in self.choices or (self.rule is not None and self.rule.holds(value))
        )


def is_integer(value: Any) -> bool:
    """Whether a value is an integer, not a truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value is an integer or a finite float."""
    return is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def as_numbers(text: str) -> tuple[float, ...] | None:
    """Read finite numbers separated by commas, such as "1,2.5" or "(1, 2.5)"; None if it is not."""
    parts = [part for part in text.strip(" ()[]").split(",") if part.strip()]
    try:
        numbers = tuple(map(float, parts))
    except ValueError:
        return None
    return numbers if numbers and all(map(math.isfinite, numbers)) else None


def _integer(low: int) -> Rule:
    return Rule(f"an integer >= {low}", lambda v: v >= low)


def _up_to(high: float) -> Rule:
    return Rule(f"0 (off) to {high:g}", lambda v: 0 <= v <= high)


def _each(words: str, holds: Callable[[Any], bool], *, empty: bool = False) -> Rule:
    return Rule(words, lambda v: (empty or len(v) > 0) and all(map(holds, v)))


_POSITIVE = Rule("a finite number > 0", lambda v: math.isfinite(v) and v > 0)
_NOT_NEGATIVE = Rule("a finite number >= 0", lambda v: math.isfinite(v) and v >= 0)
_PART = Rule("a fraction between 0 and 1, both excluded", lambda v: 0 < v < 1)
_TASKS = ("multi-class", "binary-class", "ordinal-regression", "multi-label")

SOURCES: Mapping[str, str] = {
    "P": "the LSANet paper, section 4.1",
    "M": "MedMNIST v2's own training script",
}

SECTIONS: Mapping[str, str] = {
    "": "The whole run",
    "data": "What is learned from, and how it reaches the network",
    "data.augment": "Random changes to each training image, anew in each step; all off by default",
    "data.synthetic": "Generated images, for data.name = synthetic",
    "model": "The network",
    "model.lsa": "Layer selective attention, for the objectives dsn_lsa and lsanet",
    "loss": "Weights of the loss's terms, and of classes",
    "train": "Optimization",
    "eval": "Evaluation, and the choice of the epoch to report",
}

_FIELDS = (
    Field(
        "seed",
        0,
        "Seed of everything random: the initial parameters, the order of the images, augmentation.",
        rule=Rule("an integer from 0 to 4294967295", lambda v: 0 <= v < 2**32),
    ),
    Field(
        "deterministic",
        True,
        "On a GPU, use only kernels that give the same bits in every run.",
    ),
    # data
    Field(
        "data.name",
        "synthetic",
        "A MedMNIST-2D set, such as dermamnist; or npz, folder or synthetic.",
        rule=Rule("the name of a dataset", bool),
    ),
    Field(
        "data.root",
        "",
        "Folder of the MedMNIST files. Empty: $MEDMNIST_ROOT, else ~/.medmnist.",
        may_change=True,
    ),
    Field(
        "data.url",
        "",
        "Base URL of a mirror of the MedMNIST files. Empty: MedMNIST's own server.",
        may_change=True,
    ),
    Field(
        "data.tfds_dir",
        "",
        "Folder of the MedMNIST sets that `lsanet data prepare` wrote; a set found "
        "there is used instead of the npz file. Empty: the default folder of TensorFlow Datasets.",
        may_change=True,
    ),
    Field(
        "data.path",
        "",
        "npz: the file, with arrays train_images, train_labels, and so on for val and test. "
        "folder: the folder of images.",
        may_change=True,
    ),
    Field(
        "data.csv",
        "",
        "folder: a table with columns for file, label and, optionally, split. Empty: the labels "
        "are the names of the class folders.",
    ),
    Field(
        "data.val_fraction",
        0.1,
        "folder: if there is no validation split, the part of the training images to draw for it.",
        rule=_PART,
    ),
    Field(
        "data.test_fraction",
        0.2,
        "folder: if there is no test split, the part of the training images to draw for it.",
        rule=_PART,
    ),
    Field(
        "data.split_seed",
        0,
        "folder: seed of these two splits; separate from config.seed, so that runs share splits.",
        rule=_integer(0),
    ),
    Field(
        "data.skip_broken",
        False,
        "folder: leave out images that cannot be read, and report how many; otherwise they are an "
        "error.",
    ),
    Field(
        "data.max_megapixels",
        100.0,
        "folder: larger images are an error. In millions of pixels.",
        rule=_POSITIVE,
    ),
    Field(
        "data.fit",
        "squash",
        "folder: how a picture becomes a square: squash its proportions, pad it with black, or "
        "crop its middle.",
        choices=("squash", "pad", "crop"),
    ),
    Field(
        "data.bits",
        0,
        "folder: bits of grey images that are stored in more than 8. 0: the least that holds the "
        "set's values, which is said and recorded.",
        choices=(0, 8, 10, 12, 14, 16),
    ),
    Field(
        "data.window",
        (),
        "folder, DICOM: centre and width of the window, in modality units. Empty: the file's own.",
        rule=Rule(
            "empty, or a centre and a width > 0",
            lambda v: not v or (len(v) == 2 and all(map(is_number, v)) and v[1] > 0),
        ),
    ),
    Field(
        "data.frame",
        0,
        "folder: which frame of files with several to read, counted from 1. 0: such files are an "
        "error.",
        rule=_integer(0),
    ),
    Field(
        "data.file_column",
        "",
        "folder, csv: the column with the files. Empty: recognised by its name.",
    ),
    Field(
        "data.label_column",
        "",
        "folder, csv: the column with the classes, or several of 0 and 1, separated by commas. "
        "Empty: recognised by name.",
    ),
    Field(
        "data.split_column",
        "",
        'folder, csv: the column with the splits; "none" if there is none. Empty: recognised by '
        "its name.",
    ),
    Field(
        "data.group_column",
        "",
        "folder, csv: images with the same value in this column, such as a patient, stay in one "
        'split; "none" for no groups. Empty: recognised by its name.',
    ),
    Field(
        "data.uncertain",
        "ignore",
        "folder, csv, multi-label: what blank and -1 labels are: an error; left out of cross "
        "entropy and scores (not of what classifiers say to each other: with half of the labels "
        "loss.mu counts twice); 0; or 1 if -1, 0 if blank.",
        choices=("error", "ignore", "zero", "one"),
    ),
    Field(
        "data.duplicates",
        "error",
        "folder, npz: what to do if the same image is in two splits or two classes.",
        choices=("error", "warn", "allow"),
    ),
    Field(
        "data.leaks",
        "error",
        "folder: what to do if a patient, or other group, has images in two of the given splits.",
        choices=("error", "warn", "allow"),
    ),
    Field(
        "data.folds",
        0,
        "folder: parts of a cross-validation, stratified and by group. 0: none.",
        rule=Rule("0 or an integer >= 2", lambda v: v == 0 or v >= 2),
    ),
    Field(
        "data.fold",
        0,
        "folder: which of the data.folds parts is the test split, counted from 0.",
        rule=_integer(0),
    ),
    Field(
        "data.task",
        "",
        "npz, folder: the kind of labels. Empty: inferred from the labels.",
        choices=("", *_TASKS),
    ),
    Field(
        "data.size",
        28,
        "Side of the stored images in pixels. MedMNIST: which file, 28, 64, 128 or 224; folder: "
        "what images are resized to when they are read; synthetic: what is generated.",
        rule=_integer(1),
    ),
    Field(
        "data.image_size",
        224,
        "Side of the images that the network sees, in pixels.",
        rule=_integer(1),
        source="P",
    ),
    Field(
        "data.resize",
        "nearest",
        "Interpolation between data.size and data.image_size; or pad: a border of zeros, after "
        "normalisation, around images as they are.",
        choices=("nearest", "bilinear", "bicubic", "pad"),
        source="M",
    ),
    Field("data.as_rgb", True, "Repeat grey images to 3 channels."),
    Field(
        "data.mean",
        (0.5,),
        "Subtracted from images scaled to [0, 1]; one value, or one per channel.",
        rule=_each(
            "a tuple of numbers from 0 to 1, such as (0.5,)", lambda v: is_number(v) and 0 <= v <= 1
        ),
        source="M",
    ),
    Field(
        "data.std",
        (0.5,),
        "What images are divided by after that; one value, or one per channel.",
        rule=_each(
            "a tuple of numbers > 0, at most 1, such as (0.5,)",
            lambda v: is_number(v) and 0 < v <= 1,
        ),
        source="M",
    ),
    Field(
        "data.train_fraction",
        1.0,
        "Use only this part of each class's training images. With the same seed, smaller parts lie "
        "inside larger ones.",
        rule=Rule("a fraction > 0, at most 1", lambda v: 0 < v <= 1),
    ),
    Field(
        "data.train_per_class",
        0,
        "Use only this number of training images per class, instead of a fraction. 0: all.",
        rule=_integer(0),
    ),
    Field(
        "data.sampling",
        "shuffle",
        "shuffle: an epoch has every training image. balanced: as many images, every class as "
        "often as any other, those of rare classes several times.",
        choices=("shuffle", "balanced"),
    ),
    Field(
        "data.unlabelled",
        "",
        "vicreg: images to pretrain on without labels, beside the training images: a folder; or "
        "rest, those that data.train_fraction or data.train_per_class leaves out.",
    ),
    Field(
        "data.pipeline",
        "auto",
        "device: the images live on every device. grain: they are read, decoded and sent during "
        "training. auto: device if they all fit in data.device_budget_mb. The result is the same.",
        choices=("auto", "device", "grain"),
        may_change=True,
    ),
    Field(
        "data.device_budget_mb",
        4096,
        "Memory that images may take on a device, in MiB.",
        rule=_integer(1),
        may_change=True,
    ),
    Field(
        "data.workers",
        -1,
        "grain: number of processes that decode images. -1: one per core, at most 8. 0: threads "
        "only.",
        rule=_integer(-1),
        may_change=True,
    ),
    # data.augment: the maxima are those of data/augment.py
    Field("data.augment.hflip", False, "Swap left and right, with probability 1/2."),
    Field("data.augment.vflip", False, "Swap top and bottom, with probability 1/2."),
    Field("data.augment.rot90", False, "Turn by 0, 90, 180 or 270 degrees, equally likely."),
    Field(
        "data.augment.shift",
        0.0,
        "Shift by up to this fraction of the side, either way, along each axis.",
        rule=_up_to(1),
    ),
    Field(
        "data.augment.crop",
        0.0,
        "Crop to between 1 - crop and all of the area, anywhere, and enlarge that to full size.",
        rule=_up_to(0.9),
    ),
    Field(
        "data.augment.rotate",
        0.0,
        "Rotate by up to this angle, either way, in degrees.",
        rule=_up_to(180),
    ),
    Field(
        "data.augment.scale",
        0.0,
        "Enlarge about the centre by a factor of 1 - scale to 1 + scale.",
        rule=_up_to(0.9),
    ),
    Field(
        "data.augment.brightness",
        0.0,
        "Multiply by a factor of 1 - brightness to 1 + brightness.",
        rule=_up_to(10),
    ),
    Field(
        "data.augment.contrast",
        0.0,
        "Multiply the distance from the image's mean grey by a factor of 1 - contrast to 1 + "
        "contrast.",
        rule=_up_to(10),
    ),
    Field(
        "data.augment.saturation",
        0.0,
        "Multiply the distance from each pixel's own grey by a factor of 1 - saturation to "
        "1 + saturation.",
        rule=_up_to(10),
    ),
    Field(
        "data.augment.hue",
        0.0,
        "Turn the hue by up to this fraction of the colour circle, either way.",
        rule=_up_to(0.5),
    ),
    Field(
        "data.augment.cutout",
        0.0,
        "Cover a square with grey; its side, as a fraction of the image's.",
        rule=_up_to(1),
    ),
    Field(
        "data.augment.mixup",
        0.0,
        "Blend each image and its label with another of the batch, by a weight drawn from "
        "Beta(mixup, mixup).",
        rule=_up_to(100),
    ),
    Field(
        "data.augment.cutmix",
        0.0,
        "Paste a box from another image of the batch, and blend the labels by its area; the part "
        "that stays is drawn from Beta(cutmix, cutmix). With mixup, each sample gets one of the "
        "two.",
        rule=_up_to(100),
    ),
    # data.synthetic
    Field("data.synthetic.task", "multi-class", "The kind of labels.", choices=_TASKS),
    Field(
        "data.synthetic.num_classes",
        4,
        "Number of classes, or of labels of a multi-label set.",
        rule=_integer(1),
    ),
    Field("data.synthetic.num_train", 1024, "Number of training images.", rule=_integer(1)),
    Field("data.synthetic.num_val", 256, "Number of validation images.", rule=_integer(1)),
    Field("data.synthetic.num_test", 256, "Number of test images.", rule=_integer(1)),
    Field("data.synthetic.channels", 3, "3: stained colour images. 1: grey.", choices=(1, 3)),
    Field(
        "data.synthetic.seed",
        0,
        "Which set is generated; separate from config.seed, so that runs share their data.",
        rule=_integer(0),
    ),
    # model
    Field(
        "model.backbone",
        "resnet18",
        "The network to supervise. One of your own, MODULE:CLASS, is called with in_channels= and "
        "rngs=.",
        choices=(
            *("resnet18", "resnet34", "resnet50", "resnet101"),
            *("wrn50", "wrn101", "resnext50", "resnext101"),
            *("vgg16", "vgg19", "densenet121", "densenet169", "densenet201"),
        ),
        rule=Rule("MODULE:CLASS", lambda v: ":" in v),
    ),
    Field(
        "model.stem",
        "imagenet",
        "imagenet: 7x7 convolution with stride 2, and pooling. small: 3x3 with stride 1, for 28 "
        "pixels. VGG: with or without the first of its five poolings.",
        choices=("imagenet", "small"),
    ),
    Field(
        "model.attention",
        "none",
        "Visual attention module in every block.",
        choices=("none", "se", "cbam", "eca", "srm", "simam"),
    ),
    Field(
        "model.norm",
        "batch",
        "Normalization: batch, or none for plain VGG.",
        choices=("batch", "none"),
    ),
    Field(
        "model.objective",
        "lsanet",
        "What is minimized. baseline: the network's own loss; dsn: plus auxiliary classifiers; "
        "dsn_ks: plus knowledge synergy; dks: the same on the DKS network; dsn_lsa: classifiers "
        "weighted by layer selective attention; lsanet: plus synergy; probe: the baseline, with "
        "auxiliary classifiers that leave the backbone alone (Figure 2). Beyond the paper: "
        "dsn_halving: dsn with weights that halve from deep to shallow; dhm: dks with one-sided "
        "synergy; ensemble_distill: dsn, each classifier taught by the mean of all; byot: dsn, "
        "taught by the deepest, logits and maps; selfcon: the baseline plus a supervised contrast "
        "between the stages; contrastive: plus one of each shallow stage between two views. "
        "vicreg: without labels, for `lsanet pretrain`.",
        choices=(
            *("baseline", "dsn", "dks", "dsn_ks", "dsn_lsa", "lsanet", "probe"),
            *("dsn_halving", "dhm", "ensemble_distill", "byot", "selfcon", "contrastive"),
            "vicreg",
        ),
    ),
    Field(
        "model.taps",
        (1, 2, 3, 4),
        "Supervised stages, including the last; dks and dhm never use stage 1.",
        rule=_each(
            "a tuple of stages counted from 1, such as (2, 4)", lambda v: is_integer(v) and v > 0
        ),
    ),
    Field(
        "model.lsa.kind",
        "fc",
        "How the classifiers' weights are computed; fc is the paper's choice. To compare with, "
        "weights that are the same for every image: uniform; frozen, as model.lsa.beta says; "
        "constant, learned.",
        choices=("fc", "conv", "gated", "self", "uniform", "frozen", "constant"),
    ),
    Field("model.lsa.channels", 64, "Channels of each embedded map.", rule=_integer(1)),
    Field(
        "model.lsa.reduction",
        8,
        "fc: hidden units = taps * channels / reduction.",
        rule=_integer(1),
        source="P",
    ),
    Field(
        "model.lsa.kernel_size",
        3,
        "conv: width of the 1-D convolution.",
        rule=Rule("an odd number > 0", lambda v: v > 0 and v % 2 == 1),
    ),
    Field(
        "model.lsa.beta",
        (),
        "frozen: the weight of each classifier, shallow to deep; scaled to sum to 1.",
        rule=_each(
            "a tuple of numbers > 0, one for each classifier",
            lambda v: is_number(v) and v > 0,
            empty=True,
        ),
    ),
    Field(
        "model.projection_channels",
        128,
        "selfcon, contrastive, vicreg: length of the vectors that are compared.",
        rule=_integer(1),
    ),
    Field(
        "model.dtype",
        "float32",
        "Type of the feature maps; parameters are always float32.",
        choices=("float32", "bfloat16"),
    ),
    Field(
        "model.remat",
        False,
        "Recompute blocks in the backward pass, to save memory (without effect on a CPU).",
    ),
    Field(
        "model.init_from",
        "",
        "The initial parameters: a .safetensors file with torchvision's names; "
        "hf:OWNER/REPO for one of the Hugging Face Hub; or the folder of a finished run. "
        "If they say how images are to be normalised, data.mean and data.std become that.",
    ),
    # loss
    Field(
        "loss.alpha",
        (1.0,),
        "dsn, dsn_ks, dks, dhm, ensemble_distill, byot, probe: weights of the auxiliary "
        "classifiers; one for all, or one for each.",
        rule=_each(
            "a tuple of numbers >= 0: one, or one for each auxiliary classifier",
            lambda v: is_number(v) and v >= 0,
        ),
    ),
    Field(
        "loss.mu",
        1.0,
        "dsn_ks, dks, dhm, lsanet: weight of knowledge synergy.",
        rule=_NOT_NEGATIVE,
        source="P",
    ),
    Field(
        "loss.mu_warmup_epochs",
        0.0,
        "Epochs over which loss.mu grows from 0 to its value; 0: it has its value from the start.",
        rule=_NOT_NEGATIVE,
    ),
    Field(
        "loss.temperature",
        3.0,
        "ensemble_distill, byot: the temperature at which classifiers are compared.",
        rule=_POSITIVE,
    ),
    Field(
        "loss.distill_weight",
        0.1,
        "ensemble_distill, byot: weight of what a classifier learns from its teacher's answers.",
        rule=_NOT_NEGATIVE,
    ),
    Field(
        "loss.hint_weight",
        0.03,
        "byot: weight of the distance between the shallow maps and the deepest.",
        rule=_NOT_NEGATIVE,
    ),
    Field(
        "loss.contrast_weight",
        0.1,
        "selfcon, contrastive: weight of the contrast; of contrastive, for each stage.",
        rule=_NOT_NEGATIVE,
    ),
    Field(
        "loss.contrast_temperature",
        0.07,
        "selfcon, contrastive: the smaller, the more the most similar images count.",
        rule=_POSITIVE,
    ),
    Field(
        "loss.class_weights",
        "none",
        "Weights of the classes in the cross entropy; of multi-label tasks, of each label's "
        "positives. balanced: by the inverse of the number of images; effective: by the effective "
        "number, see loss.effective_beta.",
        choices=("none", "balanced", "effective"),
        rule=Rule(
            "numbers > 0 for all classes, separated by commas, such as 1,2.5,1",
            lambda v: all(weight > 0 for weight in as_numbers(v) or (0,)),
        ),
    ),
    Field(
        "loss.effective_beta",
        0.999,
        "class_weights = effective: n images count as (1 - beta^n) / (1 - beta) of them.",
        rule=_PART,
    ),
    Field(
        "loss.focal_gamma",
        0.0,
        "Multiply each term of the cross entropy by (1 - p)^gamma, p the probability that it is "
        "about. 0: off; 2 is usual.",
        rule=_up_to(10),
    ),
    Field(
        "loss.logit_adjustment",
        0.0,
        "Logit adjustment: train with this times the log of each class's share of the images added "
        "to its logit, predict without. 0: off; 1: all classes alike.",
        rule=_up_to(10),
    ),
    Field(
        "loss.label_smoothing",
        0.0,
        "Spread this part of each label evenly over the classes.",
        rule=Rule("0 (off) to 1, excluded", lambda v: 0 <= v < 1),
    ),
    # train
    Field("train.epochs", 100, "Passes over the training images.", rule=_integer(1), source="P"),
    Field(
        "train.batch_size",
        64,
        "Images per step, over all devices.",
        rule=_integer(1),
        source="P",
    ),
    Field(
        "train.optimizer",
        "adam",
        "The optimizer.",
        choices=("adam", "adamw", "sgd"),
        source="P",
    ),
    Field(
        "train.learning_rate",
        1e-3,
        "Learning rate at the start.",
        rule=_POSITIVE,
        source="P",
    ),
    Field(
        "train.weight_decay",
        0.0,
        "Weight decay. adamw: decoupled; adam, sgd: added to the gradient.",
        rule=_NOT_NEGATIVE,
    ),
    Field(
        "train.momentum",
        0.9,
        "sgd: momentum.",
        rule=Rule("a number >= 0 and < 1", lambda v: 0 <= v < 1),
    ),
    Field(
        "train.schedule",
        "step",
        "Learning rate. step: times train.decay at each milestone; cosine: falls to 0.",
        choices=("step", "constant", "cosine"),
    ),
    Field(
        "train.milestones",
        (0.5, 0.75),
        "step: when the learning rate falls, as fractions of the epochs.",
        rule=_each(
            "a tuple of fractions between 0 and 1, both excluded",
            lambda v: is_number(v) and 0 < v < 1,
            empty=True,
        ),
        source="M",
    ),
    Field(
        "train.decay",
        0.1,
        "step: factor of the learning rate at each milestone.",
        rule=_POSITIVE,
        source="M",
    ),
    Field(
        "train.warmup_epochs",
        0.0,
        "The learning rate rises linearly over this many epochs, times what the schedule says. 0: "
        "none.",
        rule=_NOT_NEGATIVE,
    ),
    Field(
        "train.clip_norm",
        0.0,
        "Scale gradients down to this norm, that of all together. 0: off.",
        rule=_NOT_NEGATIVE,
    ),
    Field(
        "train.accumulate",
        1,
        "Steps whose gradients are averaged for one update of the weights.",
        rule=_integer(1),
    ),
    Field(
        "train.ema",
        0.0,
        "Evaluate and keep a moving average of the weights and batch statistics in their place: "
        "this times itself plus the rest times the new, in each step; at the start less. 0: off; "
        "0.99 to 0.9999 are usual.",
        rule=Rule("0 (off), or a number < 1", lambda v: 0 <= v < 1),
    ),
    Field(
        "train.early_stop",
        0,
        "Stop after this many epochs in a row without gain in what eval.select looks at. 0: off.",
        rule=_integer(0),
    ),
    Field(
        "train.freeze",
        "",
        "Leave parts as model.init_from has them, batch statistics too: backbone, for all but the "
        "classifiers and what else is trained beside it; or stage1, stage2 and so on, for the "
        "stages up to that one.",
        choices=("", "backbone"),
        rule=Rule("a stage, such as stage2", lambda v: bool(re.fullmatch("stage[1-9]", v))),
    ),
    Field(
        "train.layer_decay",
        1.0,
        "The learning rate of a stage is this times that of the stage after it, of the last one "
        "this times that of the classifiers. 1: off.",
        rule=Rule("a number > 0, at most 1", lambda v: 0 < v <= 1),
    ),
    Field(
        "train.on_nan",
        "stop",
        "What to do if a loss or gradient is not finite. skip: leave out that step.",
        choices=("stop", "skip"),
    ),
    Field(
        "train.max_skipped_steps",
        10,
        "skip: stop after all if more steps than this are left out in the whole run.",
        rule=_integer(0),
    ),
    Field(
        "train.steps_per_dispatch",
        1,
        "Steps in one device program; with small images on a GPU, 10 take half the time or less.",
        rule=_integer(1),
    ),
    Field(
        "train.log_every_steps",
        10,
        "Steps between two points in TensorBoard.",
        rule=_integer(1),
        may_change=True,
    ),
    Field(
        "train.checkpoint_every_epochs",
        1,
        "Epochs between two checkpoints to resume from; each best epoch is kept as well.",
        rule=_integer(1),
        may_change=True,
    ),
    # eval
    Field(
        "eval.batch_size",
        256,
        "Images per evaluation step, at most; changes speed and memory, and results by rounding.",
        rule=_integer(1),
    ),
    Field(
        "eval.select",
        "best_val_auc",
        "The epoch to report: the one with the best validation AUC, with the lowest validation "
        "loss, or the last.",
        choices=("best_val_auc", "best_val_loss", "last"),
        source="M",
    ),
)

FIELDS: Mapping[str, Field] = {field.name: field for field in _FIELDS}
"""Every field by its name, in the order of the config."""

MAY_CHANGE: frozenset[str] = frozenset(name for name, f in FIELDS.items() if f.may_change)
"""The fields that may have another value when a run is resumed."""
