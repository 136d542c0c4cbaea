"""Inputs and outputs as people look at them: images, waveforms, texts, numbers; all else by its statistics.

An image is of rank 4, NCHW or NHWC, or uint8 [H, W, 3], with 1 or 3 channels and both sides at least `LEAST_SIDE`. A
waveform is a run of at least `LONG` numbers along one axis, all others 1. Strings, truths and integers along at most
one axis are a text; a long run of integers of 8 or 16 bits is a waveform.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.page.png import data_address
from qcompiler.report.comparison import is_text

__all__ = ["Sample", "sample"]

Array = NDArray[Any]

LEAST_SIDE, MOST_SIDE = 16, 160
DARK = 32
"""Brightness of 255 that an image reaches whose numbers are meant so."""
LONG, MOST_POINTS = 128, 800
FEW, MOST_WORDS = 16, 512


@dataclass(frozen=True)
class Sample:
    """A tensor of one feed, of one model or of both.

    Attributes:
        name: of the tensor.
        kind: ``image``, ``wave``, ``text`` or ``numbers``.
        shapes: type and shape, for each model.
        images: addresses of pictures, for each model; of an image.
        texts: for each model; of a text.
        wave: the points ``x`` and a series for each model; of a waveform.
        rows: what is said of it and that for each model: values or statistics.
        note: what else is to be said, such as how the grey of an image is to be read.
    """

    name: str
    kind: str
    shapes: list[str]
    images: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    wave: list[list[float | None]] = field(default_factory=list)
    rows: list[tuple[str, list[str]]] = field(default_factory=list)
    note: str = ""


def sample(name: str, arrays: Sequence[Array], *, pictures: bool = True) -> Sample:
    """How a tensor is shown.

    Args:
        name: of it.
        arrays: an input, or the output of both models.
        pictures: an image may be shown as one.
    """
    shapes = [_shape(array) for array in arrays]
    if all(is_text(array) or _is_list(array) for array in arrays):
        return Sample(name, "text", shapes, texts=[_text(array) for array in arrays])
    if any(array.dtype.kind not in "fiub" for array in arrays):
        return Sample(name, "text", shapes, texts=[_shortened(str(array.tolist())) for array in arrays])
    images = [_pixels(array) if pictures else None for array in arrays]
    same = len({array.shape for array in arrays}) == 1
    if same and all(image is not None for image in images):
        return _image(name, shapes, [image for image in images if image is not None], arrays)
    runs = [_run(array) for array in arrays]
    if same and all(run is not None for run in runs):
        wave = _wave([run for run in runs if run is not None])
        return Sample(name, "wave", shapes, wave=wave, rows=_statistics(arrays))
    if same and 0 < arrays[0].size <= FEW:
        return Sample(name, "numbers", shapes, rows=_values(arrays))
    return Sample(name, "numbers", shapes, rows=_statistics(arrays))


def _is_list(array: Array) -> bool:
    """Integers and truths along at most one axis; a long run of 8 or 16 bits is a sound."""
    sound = array.dtype.kind in "iu" and array.dtype.itemsize < 4 and _run(array) is not None
    return array.dtype.kind in "iub" and sum(size != 1 for size in array.shape) <= 1 and not sound


def _shape(array: Array) -> str:
    kind = str(array.dtype) if array.dtype.kind in "fiub" else "text" if is_text(array) else "sequence or map"
    return f"{kind} {list(array.shape)}"


def _text(array: Array) -> str:
    """Words in a line; texts that hold spaces in lines of their own."""
    words = [_word(each) for each in array.flat[:MOST_WORDS]]
    mark = "\n" if any(" " in word for word in words) else " "
    return _shortened(mark.join(words + ["…"] * (array.size > MOST_WORDS)))


def _word(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _shortened(text: str, most: int = 4000) -> str:
    return text if len(text) <= most else text[:most] + " …"


def _pixels(array: Array) -> Array | None:
    """[height, width, 1 or 3] of the first image; None for what is none."""
    if array.ndim == 3 and array.dtype == np.uint8 and array.shape[2] == 3:
        found = array
    elif array.ndim != 4 or not array.shape[0]:
        return None
    elif array.shape[1] in (1, 3):
        found = np.moveaxis(array[0], 0, -1)
    elif array.shape[3] in (1, 3):
        found = array[0]
    else:
        return None
    return found if min(found.shape[:2]) >= LEAST_SIDE else None


def _image(name: str, shapes: list[str], images: Sequence[Array], arrays: Sequence[Array]) -> Sample:
    low, high = _black_and_white(images[0])
    told = [] if images[0].dtype == np.uint8 else [f"black {low:.4g}, white {high:.4g}"]
    if arrays[0].ndim == 4 and arrays[0].shape[0] > 1:
        told.append(f"the first of {arrays[0].shape[0]}")
    drawn = [data_address(_grey(_small(image), low, high)) for image in images]
    rows = _statistics(arrays) if len(arrays) > 1 else []
    return Sample(name, "image", shapes, images=drawn, rows=rows, note="; ".join(told))


def _black_and_white(image: Array) -> tuple[float, float]:
    """The values that are black and white: 0 and 255, 0 and 1 where that fits, else the extremes."""
    finite = image[np.isfinite(image)] if image.dtype.kind == "f" else image.reshape(-1)
    if image.dtype == np.uint8 or not finite.size:
        return 0.0, 255.0
    low, high = float(finite.min()), float(finite.max())
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    return (0.0, 255.0) if low >= 0 and DARK < high <= 255 else (low, high)


def _small(image: Array) -> Array:
    """At most `MOST_SIDE` pixels a side, by leaving out lines."""
    step = -(-max(image.shape[:2]) // MOST_SIDE)
    return image[::step, ::step]


def _grey(image: Array, low: float, high: float) -> NDArray[np.uint8]:
    levels = (np.asarray(image, np.float64) - low) * (255.0 / max(high - low, 1e-30))
    return np.rint(np.clip(np.nan_to_num(levels), 0, 255)).astype(np.uint8)


def _run(array: Array) -> Array | None:
    long = [size for size in array.shape if size != 1]
    return array.reshape(-1) if len(long) == 1 and long[0] >= LONG else None


def _wave(runs: Sequence[Array]) -> list[list[float | None]]:
    """Places and values; of long runs the least and the most of each stretch, so that no peak is lost."""
    size = runs[0].size
    if size <= MOST_POINTS:
        return [[*range(size)], *([_number(value) for value in run] for run in runs)]
    edges = np.linspace(0, size, MOST_POINTS // 2 + 1).astype(int)[:-1]
    places = [float(place) for edge in edges for place in (edge, edge + size / MOST_POINTS)]
    series = [np.stack([np.fmin.reduceat(run, edges), np.fmax.reduceat(run, edges)], axis=1) for run in runs]
    return [[*places], *([_number(value) for value in each.reshape(-1)] for each in series)]


def _number(value: Any) -> float | None:
    return float(f"{value:.5g}") if np.isfinite(value) else None


def _values(arrays: Sequence[Array]) -> list[tuple[str, list[str]]]:
    """Every one; of three and more that are of two models, first where the largest is."""
    rows = [(str(list(place)), [f"{array[place]:.5g}" for array in arrays]) for place in np.ndindex(arrays[0].shape)]
    if len(arrays) > 1 and len(rows) > 2:
        rows.insert(0, ("largest at", [_place(array) for array in arrays]))
    return rows


def _statistics(arrays: Sequence[Array]) -> list[tuple[str, list[str]]]:
    """Extremes, mean and spread; of two arrays, where they differ most."""
    if not all(array.size for array in arrays):
        return [("elements", [str(array.size) for array in arrays])]
    wide = [np.asarray(array, np.float64) for array in arrays]
    figures: dict[str, Callable[[Array], Any]] = {
        "least": np.min, "mean": np.mean, "most": np.max, "standard deviation": np.std,
    }  # fmt: skip
    with np.errstate(invalid="ignore", over="ignore"):
        rows = [(label, [f"{figure(array):.5g}" for array in wide]) for label, figure in figures.items()]
        rows.append(("largest at", [_place(array) for array in wide]))
        if len(wide) == 2 and wide[0].shape == wide[1].shape:
            at = np.unravel_index(int(np.nan_to_num(np.abs(wide[0] - wide[1])).argmax()), wide[0].shape)
            text = str([int(each) for each in at])
            rows.append((f"farthest apart at {text}", [f"{array[at]:.5g}" for array in wide]))
    return rows


def _place(array: Array) -> str:
    return str([int(each) for each in np.unravel_index(int(array.argmax()), array.shape)])
