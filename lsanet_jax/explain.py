"""Show what the classifiers of a run looked at: Grad-CAM at each tap, over the pictures.

Examples:
  lsanet explain --workdir=runs/r18
  lsanet explain --workdir=runs/r18 --input=images/ --target=melanoma --per_class=4

Of the run's test split, or of --input, some images of each predicted class are explained. Each
gets a PNG with panels at its own size: the picture; in the upper row what each classifier, shallow
to deep, looked at in the map that it is fed with; in the lower row what the network's own
classifier looked at in each of the maps. sheet_CLASS.png shows the images of a class together.

A heat map is for the predicted class, or for --target. It says where evidence for a class lay, not
why, and nothing about what is not there. That it depends on what was learned is checked as Adebayo
et al. do: the correlation with the heat maps of a network with shuffled weights is printed.
"""

import functools
import itertools
import logging
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8
from PIL import Image

from lsanet_jax import data as data_lib
from lsanet_jax import predict
from lsanet_jax.data import preprocess as preprocessing
from lsanet_jax.data.sources import images as image_files
from lsanet_jax.errors import ConfigError, LSANetError, WorkdirError, near_matches
from lsanet_jax.models import formulation
from lsanet_jax.runs.trained import TrainedModel, load
from lsanet_jax.runtime import cli
from lsanet_jax.runtime.files import replacing

log = logging.getLogger(__name__)

Heat = Float[np.ndarray, "b h w"]

_AT_ONCE = 16
_THUMBNAIL, _PER_ROW, _GAP = 128, 4, 6
_OPACITY = 0.6  # Of the hottest place.
_CHECKED = 8  # Images of which shuffled weights are tried.


def grad_cam(
    model, x: Float[Array, "b h w c"], classes: Int[Array, " b"] | None
) -> tuple[list[list[Array | None]], Float[Array, "b k"]]:
    """Compute Grad-CAM of each classifier at each tap (Selvaraju et al., ICCV 2017).

    relu(sum_c w_c A_c), where A is the map of a tap and w_c the mean over the positions of the
    gradient of the class's logit by A_c; divided by its maximum.

    Args:
        model: a `DeeplySupervised` in evaluation mode.
        x: images as the network sees them.
        classes: to explain; None for the most probable by the network's own classifier.

    Returns:
        For each classifier and each tap, both shallow to deep, a map [b, h_tap, w_tap] in [0, 1];
        None at taps deeper than the classifier. And the logits of the network's own classifier.
    """
    x = x.astype(model.dtype)
    program = jax.make_jaxpr(lambda x: model.backbone(x))(x)
    heads, taps = [*model.auxiliary, model.fc], [tap - 1 for tap in model.taps]

    def logits_of(shifts: list[Array]) -> tuple[Array, list[Array]]:
        maps = _run_with_shifts(program, x, dict(zip(taps, shifts, strict=True)))
        maps = [maps[tap] for tap in taps]
        return jnp.stack([head(m) for head, m in zip(heads, maps, strict=True)]), maps

    shapes = jax.eval_shape(lambda x: model.backbone(x), x)
    none = [jnp.zeros(shapes[tap].shape, shapes[tap].dtype) for tap in taps]
    logits, pull, maps = jax.vjp(logits_of, none, has_aux=True)
    classes = jnp.argmax(logits[-1], axis=-1) if classes is None else classes
    wanted = jax.nn.one_hot(classes, logits.shape[-1], dtype=logits.dtype)
    heats = []
    for i in range(len(heads)):
        (gradients,) = pull(jnp.zeros_like(logits).at[i].set(wanted))
        heats.append([_heat(m, g) for m, g in zip(maps[: i + 1], gradients, strict=False)])
        heats[-1] += [None] * (len(heads) - i - 1)
    return heats, logits[-1]


def _run_with_shifts(program, x: Array, shifts: dict[int, Array]) -> list[Array]:
    """Run a traced backbone, with a shift added to some of its results wherever they are used."""
    jaxpr = program.jaxpr
    by_variable = {jaxpr.outvars[i]: shift for i, shift in shifts.items()}
    known = dict(zip(jaxpr.constvars, program.consts, strict=True)) | {jaxpr.invars[0]: x}
    read = lambda atom: atom.val if hasattr(atom, "val") else known[atom]
    for equation in jaxpr.eqns:
        parameters = equation.primitive.get_bind_params(equation.params)
        found = equation.primitive.bind(*map(read, equation.invars), **parameters)
        found = found if equation.primitive.multiple_results else [found]
        for variable, value in zip(equation.outvars, found, strict=True):
            shift = by_variable.get(variable)
            known[variable] = value if shift is None else value + shift
    return [read(atom) for atom in jaxpr.outvars]


def _heat(feature_map: Array, gradient: Array) -> Array:
    wide = lambda a: a.astype(jnp.promote_types(a.dtype, jnp.float32))
    weights = jnp.mean(wide(gradient), axis=(1, 2), keepdims=True)
    heat = jax.nn.relu(jnp.sum(weights * wide(feature_map), axis=-1))
    return heat / jnp.maximum(jnp.max(heat, axis=(1, 2), keepdims=True), 1e-12)


def explainer(trained: TrainedModel) -> Callable[..., tuple[list[list[Any]], Array]]:
    """Compile `grad_cam` for uint8 images in the form of the training images, and classes."""
    prepare = preprocessing.preprocessor(trained.config.data)
    graphdef, state = nnx.split(trained.model)

    def run(state: nnx.State, images: UInt8[Array, "b h w c"], classes: Int[Array, " b"]):
        return grad_cam(nnx.merge(graphdef, state), prepare(images), classes)

    compiled = jax.jit(run, compiler_options=formulation.compiler_options())
    return lambda images, classes: jax.device_get(compiled(state, images, classes))


def class_heat(
    trained: TrainedModel, images: UInt8[np.ndarray, "n h w c"], classes: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n h2 w2"]:
    """Grad-CAM of the network's own classifier at its own map, in a forward pass.

    The gradient of a logit by a map that is pooled and multiplied with W is W / (h w).

    Args:
        trained: the network.
        images: in the form of the training images.
        classes: to explain.
    """
    prepare = preprocessing.preprocessor(trained.config.data)
    graphdef, state = nnx.split(trained.model)

    def run(state: nnx.State, images: UInt8[Array, "b h w c"], classes: Int[Array, " b"]) -> Array:
        model = nnx.merge(graphdef, state)
        deepest = model.backbone(prepare(images).astype(model.dtype))[-1]
        weights = model.fc.kernel[...].T[classes][:, None, None, :]
        return _heat(deepest, jnp.broadcast_to(weights, deepest.shape))

    compiled = jax.jit(run, compiler_options=formulation.compiler_options())
    return jax.device_get(compiled(state, images, classes))


def shuffled(model, seed: int = 0):
    """A copy of a network whose weights are shuffled, each parameter in itself."""
    rng = np.random.default_rng(seed)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    mixed = jax.tree.map(
        lambda a: jnp.asarray(rng.permutation(np.asarray(a).ravel()).reshape(a.shape)), params
    )
    return nnx.merge(graphdef, mixed, rest)


def over_picture(
    heat: Float[np.ndarray, "h w"], size: tuple[int, int], fit: str = "squash"
) -> Float[np.ndarray, "h2 w2"]:
    """Bring a heat map to a picture's own (width, height), as the picture was made square."""
    width, height = size
    side = {"pad": max(size), "crop": min(size)}.get(fit)
    target = (width, height) if side is None else (side, side)
    large = Image.fromarray(heat.astype(np.float32)).resize(target, Image.Resampling.BILINEAR)
    left, top = (width - target[0]) // 2, (height - target[1]) // 2
    whole = Image.new("F", size)  # Padding lies outside, and what was cut off is cold.
    whole.paste(large, (left, top))
    return np.asarray(whole)


def without_border(
    heat: Float[np.ndarray, "h w"], trained: TrainedModel
) -> Float[np.ndarray, "h2 w2"]:
    """Cut off of a heat map what lies on the border that data.resize=pad puts around images."""
    data, (height, width) = trained.config.data, trained.dataset["stored_shape"][:2]
    if data.resize != "pad":
        return heat
    top, left = (data.image_size - height) // 2, (data.image_size - width) // 2
    whole = over_picture(heat, (data.image_size, data.image_size))
    return whole[top : top + height, left : left + width]


def overlay(
    picture: UInt8[np.ndarray, "h w 3"], heat: Float[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Lay a heat map over a picture of its size: the hotter, the more opaque."""
    import matplotlib

    colours = matplotlib.colormaps["turbo"](np.clip(heat, 0, 1))[..., :3] * 255
    opacity = _OPACITY * np.clip(heat, 0, 1)[..., None]
    return np.round(picture * (1 - opacity) + colours * opacity).astype(np.uint8)


def explain(
    workdir: str | pathlib.Path,
    *,
    input: str | None = None,
    output: str | None = None,
    split: str | None = None,
    target: str | None = None,
    per_class: int = 8,
    skip_broken: bool = False,
    checkpoint: str = "selected",
    trust_code: bool = False,
) -> pathlib.Path:
    """Explain some images of each predicted class; the arguments are the flags of this module.

    Returns:
        The folder with the pictures.

    Raises:
        LSANetError: the run or the images cannot be read, or the folder cannot be written.
    """
    split = predict.check_split(input, split)
    if per_class < 1:
        raise ConfigError(f"--per_class={per_class}: expected at least 1")
    trained = load(workdir, checkpoint, trust_code=trust_code)
    names = trained.dataset["class_names"]
    if target is not None and target not in names:
        near = near_matches(target, names)
        raise ConfigError(f"--target={target}: expected one of {', '.join(names)}{near}")
    skip_broken = skip_broken or trained.config.data.skip_broken
    pictures = Pictures(trained, input, split, skip_broken=skip_broken)
    chosen, classes, kinds = _choose(trained, pictures.source, per_class, target)
    folder = pathlib.Path(output or pathlib.Path(workdir) / "explanations")
    run, sheets, heats, written = explainer(trained), {}, [], set()
    for start in range(0, len(chosen), _AT_ONCE):
        part = np.resize(chosen[start : start + _AT_ONCE], _AT_ONCE)
        maps, _ = run(pictures.source.read(part), np.resize(classes[start:], _AT_ONCE))
        heats.append(maps[-1][-1])
        for i, image in enumerate(chosen[start : start + _AT_ONCE]):
            picture = pictures.original(image)
            cells = panels(picture, maps, i, trained)
            kind = kinds[start + i]
            name = unused(f"{_file_name(kind)}_{_stem(pictures.source.names[image])}", written)
            written.add(name.lower())
            _save(folder / f"{name}.png", mosaic(cells))
            pair = [_thumbnail(cells[0][0]), _thumbnail(cells[-1][-1])]
            sheets.setdefault(kind, []).append(np.concatenate(pair, axis=1))
    for kind, pairs in sheets.items():
        rows = [pairs[i : i + _PER_ROW] for i in range(0, len(pairs), _PER_ROW)]
        _save(folder / f"sheet_{_file_name(kind)}.png", mosaic(rows))
    _check(trained, pictures.source, chosen, classes, np.concatenate(heats))
    return folder


class Pictures:
    """The images to explain: in the form of the training images, and at their own size."""

    def __init__(
        self, trained: TrainedModel, input: str | None, split: str, *, skip_broken: bool = False
    ):
        """Open them.

        Args:
            trained: the network.
            input: folder, image or npz file; None for the run's own data.
            split: of an npz file or the run's data.
            skip_broken: leave out images that cannot be read.
        """
        self._decoding, self._root = trained.decoding, None
        if input:
            path = pathlib.Path(input)
            self.source = predict.open_source(path, trained, split, skip_broken=skip_broken)
            if path.suffix.lower() != ".npz":
                self._root = path if path.is_dir() else path.parent
        else:
            data = trained.config.data
            own = predict.own_data(trained, split)
            names = own.names or predict.numbered(split, len(own.images))
            self.source = predict.from_array(own.images, names)
            if own.names and data.name == "folder":
                self._root = pathlib.Path(os.path.expanduser(data.path))

    def original(self, i: int) -> UInt8[np.ndarray, "h w 3"]:
        """An image at its own size, or as it is stored if it has no file that can be read."""
        if self._root is not None:
            own = {"size", "resize", "channels", "fit"}
            reading = {k: v for k, v in self._decoding.items() if k not in own}
            try:
                file = self._root / self.source.names[i]
                return np.asarray(image_files.read(file, **reading).convert("RGB"))
            except (LSANetError, OSError) as error:
                log.warning("shown as it is stored: %s", error)
        image = self.source.read(np.array([i]))[0]
        return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image


def panels(
    picture: UInt8[np.ndarray, "h w 3"], maps: list[list[Any]], i: int, trained: TrainedModel
) -> list[list[UInt8[np.ndarray, "h w 3"]]]:
    """The rows of panels of image i: see the module."""
    size, fit = (picture.shape[1], picture.shape[0]), trained.decoding["fit"]
    inner = lambda heat: without_border(heat[i], trained)
    shown = lambda heat: overlay(picture, over_picture(inner(heat), size, fit))
    own_map = [shown(of[place]) for place, of in enumerate(maps)]
    own_classifier = [shown(heat) for heat in maps[-1]]
    return [[picture, *own_map], [picture, *own_classifier]]


def mosaic(rows: Sequence[Sequence[np.ndarray]]) -> UInt8[np.ndarray, "h w 3"]:
    """Lay images of one size out in rows, on white."""
    columns = max(map(len, rows))
    blank = np.full_like(rows[0][0], 255)
    framed = lambda image: np.pad(image, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255)
    lines = [
        np.concatenate([framed(each) for each in [*row, *[blank] * (columns - len(row))]], axis=1)
        for row in rows
    ]
    return np.concatenate(lines)[:-_GAP, :-_GAP]


def _choose(
    trained: TrainedModel, source: predict.Source, per_class: int, target: str | None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Which images to explain, for which class, and which class each is predicted as."""
    names = trained.dataset["class_names"]
    found, _ = predict.predict(trained, source, batch_size=64, all_classifiers=False)
    sound, kinds = np.array(source.sound(), int), range(len(names))
    likeliest = found[-1].argmax(axis=-1)
    if trained.dataset["task"] == "multi-label":  # As predict does: each label, or none of them.
        has = found[-1] > 0.5
        has = np.concatenate([has, ~has.any(axis=-1, keepdims=True)], axis=-1)
        names, kinds = [*names, "none"], [*kinds, len(names)]
    else:
        has = likeliest[:, None] == np.arange(len(names))
    chosen = [sound[has[sound, k]][:per_class] for k in kinds]
    kind = np.repeat(kinds, [len(images) for images in chosen])
    chosen = np.concatenate(chosen).astype(int)
    classes = np.where(kind < found.shape[-1], kind, likeliest[chosen])
    if target is not None:
        classes = np.full(len(chosen), names.index(target))
    return chosen, classes, [names[k] for k in kind]


def _check(trained: TrainedModel, source, chosen, classes, heats: np.ndarray) -> None:
    """Say how much the heat maps have in common with those of shuffled weights."""
    part = np.resize(chosen[:_CHECKED], _AT_ONCE)
    run = explainer(trained._replace(model=shuffled(trained.model)))
    other = run(source.read(part), np.resize(classes[:_CHECKED], _AT_ONCE))[0][-1][-1]
    count = min(_CHECKED, len(chosen))
    if heats[0].size > 1:
        log.info(
            "heat maps correlate %.2f with those of the same network with shuffled weights, on %d "
            "images; near 1 they would not depend on what was learned",
            correlation(heats[:count], other[:count]),
            count,
        )


def correlation(a: Heat, b: Heat) -> float:
    """Mean over the images of the correlation of two heat maps; constant ones count 0."""
    a, b = (x.reshape(len(x), -1) - x.reshape(len(x), -1).mean(axis=1)[:, None] for x in (a, b))
    scale = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = (a * b).sum(axis=1)
    return float(np.divide(products, scale, out=np.zeros(len(a)), where=scale > 0).mean())


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """An image within a square, on white."""
    small = Image.fromarray(image)
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    if max(small.size) < _THUMBNAIL:
        scale = _THUMBNAIL / max(small.size)
        size = (max(1, round(small.width * scale)), max(1, round(small.height * scale)))
        small = small.resize(size, Image.Resampling.NEAREST)
    square = Image.new("RGB", (_THUMBNAIL, _THUMBNAIL), "white")
    square.paste(small, ((_THUMBNAIL - small.width) // 2, (_THUMBNAIL - small.height) // 2))
    return np.asarray(square)


def unused(name: str, used: set[str]) -> str:
    """Return a name, numbered if it is used already: by a/b.png and a_b.png, or a.png and a.jpg."""
    numbered = (f"{name}_{number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], numbered) if each.lower() not in used)


def _stem(name: str) -> str:
    """The name of an image without the suffix of its file, if it has one of a picture."""
    stem, suffix = os.path.splitext(name)
    return _file_name(stem if suffix.lower() in image_files.SUFFIXES else name)


def _file_name(text: str) -> str:
    name = re.sub(r"[^\w.-]+", "_", text).encode()[-100:]  # The end tells files of a folder apart.
    return name.decode(errors="ignore")


def _save(file: pathlib.Path, image: np.ndarray) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            Image.fromarray(image).save(temporary, "PNG")
    except OSError as error:
        raise WorkdirError(f"cannot write --output={file.parent}: {error}") from error


def main() -> None:
    """Explain what the command line names."""
    parser = cli.parser(__doc__)
    cli.add_checkpoint(parser)
    add = functools.partial(parser.add_argument, type=cli.path)
    add("--input", help="folder, image or npz file (default: the run's data)")
    add("--output", help="folder to write (default: explanations in the run)")
    parser.add_argument(
        "--split", choices=data_lib.SPLITS, help="of an npz file or the run's data (default: test)"
    )
    parser.add_argument("--target", help="the class to explain (default: the predicted one)")
    parser.add_argument(
        "--per_class", type=int, default=8, help="images of each predicted class (default: 8)"
    )
    parser.add_argument(
        "--skip_broken", action="store_true", help="leave out images that cannot be read"
    )
    args = parser.parse_args()
    cli.run(lambda: print(explain(**vars(args))))


if __name__ == "__main__":
    main()
