"""The worst mistakes and the most doubtful images of a run, with heat maps."""

import base64
import io
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from lsanet_jax import explain
from lsanet_jax.evaluation import doubt
from lsanet_jax.report.page import text
from lsanet_jax.report.run import Finished
from lsanet_jax.runs.trained import load

_SHOWN = 12
_SIDE = 140  # Pixels of a picture, whose heat map is beside it.


def section(found: Finished) -> Iterator[str]:
    """Show pictures beside what the network's own classifier looked at."""
    assert found.dataset is not None  # Else the page has no such section.
    wrong = doubt.errors(found.test.labels, found.answer, found.task)
    doubts = doubt.doubt(found.answer, found.votes, found.test.beta, found.task)
    mistaken = np.flatnonzero(wrong > 0)
    confident = mistaken[np.argsort(doubts[mistaken], kind="stable")][:_SHOWN]
    doubtful = np.argsort(-doubts, kind="stable")[:_SHOWN]
    places = np.concatenate([confident, doubtful])
    images = np.asarray(found.dataset.test.images[places])
    classes = found.answer[places].argmax(axis=-1)
    pairs = _with_heat(found, images, classes)
    yield (
        '<p class="small">Right of each picture: where the network\'s own classifier saw evidence '
        "for the class that it took to be most probable (Grad-CAM at the last stage).</p>"
    )
    for title, part, of in (
        ("Mistakes, the most confident first", confident, pairs[: len(confident)]),
        ("Most doubtful images", doubtful, pairs[len(confident) :]),
    ):
        yield f"<h3>{text(title)}</h3>"
        if not len(part):
            yield '<p class="small">There are none.</p>'
            continue
        items = [
            _item(found, int(i), float(doubts[i]), pair) for i, pair in zip(part, of, strict=True)
        ]
        yield f'<ul class="pictures">{"".join(items)}</ul>'


def _item(found: Finished, i: int, doubt_of: float, pair: UInt8[np.ndarray, "_ _ 3"]) -> str:
    assert found.dataset is not None
    names = found.dataset.test.names
    name, label, p = names[i] if names else f"test/{i}", found.test.labels[i], found.answer[i]
    if found.task == "multi-label":
        truth, said = _listed(found.names, label == 1), _listed(found.names, p > 0.5)
        if (label < 0).any():
            truth += f" (not known: {_listed(found.names, label < 0)})"
    else:
        k = int(p[1] > 0.5) if found.task == "binary-class" else int(p.argmax())
        truth, said = found.names[label], f"{found.names[k]} ({100 * p[k]:.0f} %)"
    about = f"{name}: is {truth}, predicted {said}, doubt {doubt_of:.2f}"
    return f'<li><img src="{_data_url(pair)}" alt="{text(about)}"><p>{text(about)}</p></li>'


def _listed(names: Sequence[str], chosen: np.ndarray) -> str:
    return ", ".join(names[int(k)] for k in np.flatnonzero(chosen)) or "none"


def _with_heat(
    found: Finished, images: UInt8[np.ndarray, "n h w c"], classes: Int[np.ndarray, " n"]
) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    trained = load(found.path, trust_code=found.trust_code)
    heats: Float[np.ndarray, "n h2 w2"] = explain.class_heat(trained, images, classes)
    pairs = []
    for image, heat in zip(images, heats, strict=True):
        colour = np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
        scale = _SIDE / max(colour.shape[:2])
        size = (round(colour.shape[1] * scale), round(colour.shape[0] * scale))
        small = np.asarray(Image.fromarray(colour).resize(size, Image.Resampling.BICUBIC))
        heat = explain.over_picture(explain.without_border(heat, trained), size)
        shown = explain.overlay(small, heat)
        pairs.append(np.concatenate([small, shown], axis=1))
    return pairs


def _data_url(image: UInt8[np.ndarray, "h w 3"]) -> str:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
