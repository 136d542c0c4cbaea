"""Where calibration feeds come from: files, a function, any iterable of dicts, or nothing at all.

A source may be iterated many times and holds one feed in memory. Every feed is checked against the graph's inputs when
it is read.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import DataError, QCompilerError
from qcompiler.feeds.functions import function_named, is_function_name, what_happened
from qcompiler.feeds.synthetic import SyntheticFeeds, settle_sizes
from qcompiler.graph.ir import Feed, Graph
from qcompiler.pass_base import Context

__all__ = ["InputSpec", "Source", "check_feed", "input_specs", "open_source", "synthetic_source", "without"]

SYNTHETIC_FEEDS = 16
SYNTHETIC_WARNING = (
    "no calibration data given: inputs are made up from the graph, and ranges may be far off; pass real ones with "
    "--calib (.npz, a folder, or module:function)"
)


@dataclass(frozen=True)
class InputSpec:
    """What a graph input accepts. A dimension that is not an int may have any size; ``shape`` None: any rank."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        dims = (
            "any shape"
            if self.shape is None
            else "[" + ", ".join("?" if d is None else str(d) for d in self.shape) + "]"
        )
        return f"{self.dtype} {dims}"

    def admits(self, shape: tuple[int, ...]) -> bool:
        """True when an array of ``shape`` fits."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            want is None or want == have for want, have in zip(self.shape, shape, strict=True)
        )


def input_specs(graph: Graph) -> tuple[InputSpec, ...]:
    """The graph's inputs."""
    return tuple(InputSpec(tensor.name, np.dtype(tensor.dtype), _dims(tensor.shape)) for tensor in graph.inputs)


def _dims(shape: Any) -> tuple[int | None, ...] | None:
    return (
        None if shape is None else tuple(int(d) if isinstance(d, int | np.integer) and d >= 0 else None for d in shape)
    )


def check_feed(feed: Any, specs: tuple[InputSpec, ...], where: str) -> Feed:
    """``feed`` as a dict of arrays in input order.

    Raises:
        DataError: it is no mapping, an input is missing or unknown, an array has another type or shape, or holds NaN or
            infinity, or no input holds an element.
    """
    if not isinstance(feed, Mapping):
        raise DataError(
            f"{where}: is a {type(feed).__name__}; expected a dict of arrays by input name ({_names(specs)})"
        )
    unknown = [name for name in feed if name not in {spec.name for spec in specs}]
    if unknown:
        raise DataError(f"{where}: '{unknown[0]}' is no input of the model; expected {_names(specs)}")
    checked = {spec.name: _check_array(feed, spec, where) for spec in specs}
    if checked and all(array.size == 0 for array in checked.values()):  # a cache may be empty, a feed not
        first = specs[0]
        raise DataError(
            f"{where}: input '{first.name}' has shape {list(checked[first.name].shape)}, which holds no "
            f"element; expected {first}"
        )
    return checked


def _names(specs: Iterable[InputSpec]) -> str:
    return ", ".join(f"'{spec.name}' ({spec})" for spec in specs)


def _check_array(feed: Mapping[str, Any], spec: InputSpec, where: str) -> NDArray[Any]:
    if spec.name not in feed:
        raise DataError(f"{where}: input '{spec.name}' is missing; expected {spec}")
    array = np.asarray(feed[spec.name])
    array = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    if spec.dtype == np.object_ and array.dtype.kind in "US":
        array = np.asarray(array.astype(str), object)  # strings: onnxruntime takes them as objects
    if array.dtype != spec.dtype:
        raise DataError(f"{where}: input '{spec.name}' is {array.dtype}; expected {spec}")
    if not spec.admits(array.shape):
        raise DataError(f"{where}: input '{spec.name}' has shape {list(array.shape)}; expected {spec}")
    if np.issubdtype(array.dtype, np.floating) and not np.all(np.isfinite(array)):
        raise DataError(f"{where}: input '{spec.name}' holds NaN or infinity")
    return array


@dataclass(frozen=True)
class Source:
    """Feeds that may be iterated again and again.

    Attributes:
        name: for messages.
        specs: the inputs every feed is checked against.
        read: opens a fresh iterator over (name of a feed, feed).
        length: number of feeds where it is known.
        made_up: the feeds are not the user's.
    """

    name: str
    specs: tuple[InputSpec, ...]
    read: Callable[[], Iterator[tuple[str, Any]]] = field(repr=False)
    length: int | None = None
    made_up: bool = False

    def __iter__(self) -> Iterator[Feed]:
        """Checked feeds. Raises DataError for one that does not fit, and when there is none."""
        empty = True
        for where, feed in self.read():
            empty = False
            yield check_feed(feed, self.specs, where)
        if empty:
            raise DataError(f"{self.name}: the calibration set is empty; give at least one feed")


def without(source: Source, left_out: frozenset[int]) -> Source:
    """The feeds of a source but for those of some indices."""
    if not left_out:
        return source

    def read() -> Iterator[tuple[str, Any]]:
        return (item for index, item in enumerate(source.read()) if index not in left_out)

    return replace(source, read=read, length=None if source.length is None else source.length - len(left_out))


def open_source(data: str | os.PathLike[str] | Iterable[Feed], graph: Graph) -> Source:
    """Feeds from a ``.npz`` file, a folder of ``.npz`` / ``.npy`` files, ``module:function``, or an iterable of dicts.

    An iterator that can be read only once is spooled to a temporary folder.

    Raises:
        DataError: what is named does not exist or cannot be read.
    """
    specs = input_specs(graph)
    if isinstance(data, str | os.PathLike):
        return _open_named(os.fspath(data), specs)
    if isinstance(data, Mapping):
        return Source("feed", specs, lambda: iter([("feed", data)]), 1)
    if not isinstance(data, Iterable):
        raise DataError(
            f"calibration data is a {type(data).__name__}; expected a path or an iterable of dicts ({_names(specs)})"
        )
    if iter(data) is data:
        return _spool(data, specs)
    length = len(data) if isinstance(data, Sized) else None
    return Source("calibration data", specs, lambda: _numbered("feed", data), length)


def synthetic_source(graph: Graph, ctx: Context) -> Source:
    """Feeds made up from the graph alone, the same for the same seed; warns once."""
    ctx.warn(SYNTHETIC_WARNING)
    given = dict(ctx.dims)
    settle_sizes(graph, ctx)
    found = ", ".join(f"{name}={size}" for name, size in ctx.dims.items() if name not in given)
    if found:
        ctx.warn(f"the model does not run on small made-up feeds; sizes on which it does: {found}")
    feeds = SyntheticFeeds(graph, ctx, SYNTHETIC_FEEDS)
    return Source(
        "synthetic feeds", input_specs(graph), lambda: _numbered("synthetic feed", feeds), SYNTHETIC_FEEDS, made_up=True
    )


def _numbered(label: str, feeds: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"{label} {index}", feed) for index, feed in enumerate(feeds))


def _open_named(text: str, specs: tuple[InputSpec, ...]) -> Source:
    path = Path(text)
    if path.is_dir():
        files = sorted(item for item in path.iterdir() if item.suffix in (".npz", ".npy"))
        if not files:
            raise DataError(f"{text}: the folder holds no .npz or .npy file")
        return Source(text, specs, lambda: (found for file in files for found in _read_file(file, specs)))
    if path.is_file():
        if path.suffix not in (".npz", ".npy"):
            raise DataError(f"{text}: not a .npz or .npy file; give one of these, a folder of them, or module:function")
        return Source(text, specs, lambda: _read_file(path, specs))
    if is_function_name(text):
        call = function_named(text, "yields feeds")
        return Source(text, specs, lambda: _numbered(f"{text}: feed", _called(text, call)))
    raise DataError(f"{text}: no such file or folder; give a .npz, a folder of .npz or .npy files, or module:function")


def _called(text: str, function: Callable[[], Iterable[Any]]) -> Iterator[Any]:
    """The feeds of the user's function."""
    try:
        yield from _iterable(text, function())
    except QCompilerError:
        raise
    except Exception as error:  # the user's function may raise anything
        raise DataError(f"{text}: {what_happened(error)}") from error


def _iterable(text: str, feeds: Any) -> Iterable[Any]:
    if not isinstance(feeds, Iterable) or isinstance(feeds, Mapping):
        raise DataError(
            f"{text}: returned an object of type {type(feeds).__name__}; it must yield feeds (dicts of "
            "arrays by input name)"
        )
    return feeds


def _spool(feeds: Iterable[Any], specs: tuple[InputSpec, ...]) -> Source:
    """Write the feeds of a one-shot iterator to a temporary folder that lives as long as the source."""
    folder = Path(tempfile.mkdtemp(prefix="qcompiler-feeds-"))
    count = 0

    def read() -> Iterator[tuple[str, Any]]:
        for index in range(count):
            with np.load(folder / f"{index + 1:09}.npz") as arrays:
                yield f"feed {index}", {spec.name: arrays[f"arr_{i}"] for i, spec in enumerate(specs)}

    weakref.finalize(read, shutil.rmtree, folder, ignore_errors=True)
    for count, (where, feed) in enumerate(_numbered("feed", feeds), 1):
        checked = check_feed(feed, specs, where)
        with (folder / f"{count:09}.npz").open("wb") as file:
            np.savez(file, *checked.values())
    return Source("calibration data", specs, read, count)


def _read_file(path: Path, specs: tuple[InputSpec, ...]) -> Iterator[tuple[str, Any]]:
    try:
        if path.suffix == ".npy":
            yield from _read_npy(path, specs)
        else:
            yield from _read_npz(path, specs)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _read_npy(path: Path, specs: tuple[InputSpec, ...]) -> Iterator[tuple[str, Any]]:
    if len(specs) != 1:
        raise DataError(
            f"{path}: a .npy file holds one array, the model has {len(specs)} inputs ({_names(specs)}); use .npz files"
        )
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not _has_sample_axis(array.shape, specs[0]):
        yield str(path), {specs[0].name: array}
        return
    for index in range(len(array)):
        yield f"{path} sample {index}", {specs[0].name: np.array(array[index])}


def _has_sample_axis(shape: tuple[int, ...], spec: InputSpec) -> bool:
    return spec.shape is not None and len(shape) == len(spec.shape) + 1


def _read_npz(path: Path, specs: tuple[InputSpec, ...]) -> Iterator[tuple[str, Any]]:
    """One feed, or one per sample (read one by one) where every array has one axis more than its input."""
    known = {spec.name: spec for spec in specs}
    with zipfile.ZipFile(path) as archive:
        members = {entry.removesuffix(".npy"): entry for entry in archive.namelist() if entry.endswith(".npy")}
        headers = {name: _header(archive, entry) for name, entry in members.items()}
        samples = {
            shape[0]
            for name, (shape, _, _) in headers.items()
            if name in known and _has_sample_axis(shape, known[name])
        }
        if not samples or set(members) != set(known):
            yield str(path), {name: _whole(archive, entry) for name, entry in members.items()}
            return
        lengths = {name: shape[0] for name, (shape, _, _) in headers.items() if _has_sample_axis(shape, known[name])}
        if len(samples) != 1 or len(lengths) != len(known):
            raise DataError(
                f"{path}: give every array the same leading sample axis, or none; found shapes "
                f"{[h[0] for h in headers.values()]}"
            )
        streams = {name: _samples(archive, entry) for name, entry in members.items()}
        for index in range(samples.pop()):
            yield f"{path} sample {index}", {name: next(stream) for name, stream in streams.items()}


def _header(archive: zipfile.ZipFile, entry: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    with archive.open(entry) as file:
        return _read_header(file)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return shape, fortran, dtype


def _whole(archive: zipfile.ZipFile, entry: str) -> NDArray[Any]:
    with archive.open(entry) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array


def _samples(archive: zipfile.ZipFile, entry: str) -> Iterator[NDArray[Any]]:
    with archive.open(entry) as file:
        shape, fortran, dtype = _read_header(file)
        if fortran:
            yield from _whole(archive, entry)
            return
        size = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        for _ in range(shape[0]):
            data = file.read(size)
            if len(data) != size:
                raise ValueError(f"'{entry}' is truncated")
            yield np.frombuffer(data, dtype).reshape(shape[1:])


def feeds_of(graph: Graph, ctx: Context) -> Iterable[Feed]:
    """The calibration feeds; where there are none, feeds made up from the graph."""
    return ctx.data if ctx.data is not None else synthetic_source(graph, ctx)
