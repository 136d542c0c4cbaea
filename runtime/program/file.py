"""The ``.qprog`` file: a safetensors file (``blob``, ``code``, ``kinds``) with JSON metadata. No code inside.

The layout is fixed (header padded to 64 bytes, the blob first), so that the blob is aligned in the mapped file and
equal programs give equal bytes. A checksum over everything tells damage from design; what a clever forger could write
is still harmless, because `bind.py` proves every access of every instruction before it runs.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ProgramError
from ..instructions.instruction import ELEMENT_DTYPE, WIDTH, Element
from .block_tables import BLOCKS, MOST_TABLES
from .coded_constants import CODE_BITS, CODED_TYPES, Coding
from .contents import NO_FILLS, BufferInfo, ConstantInfo, Contents, Port
from .file_memory import ALIGNMENT, aligned_copy, read_or_map
from .file_ports import expressions, ports, whole_numbers
from .smooth_tables import ORDERS

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = "qprog"
VERSION = 6
"""That of programs that store tables as differences."""
FILL_VERSION = 5
"""That of other programs with fills at their outputs."""
PLAIN_VERSION = 4
"""That of all others, which older machines read, too."""
_VERSIONS = (PLAIN_VERSION, FILL_VERSION, VERSION)
_MAX_HEADER = 100 << 20
MIXED_MAGIC = b"PK\x03\x04"
"""How a mixed program begins: a zip archive, which the compiler writes, and this machine only tells apart."""
_ENTRY = 30
"""Bytes in front of the name of a zip entry."""

_OF_DTYPE = {name: element for element, name in ELEMENT_DTYPE.items()}
_SAFETENSORS_DTYPE: dict[str, np.dtype[Any]] = {"U8": np.dtype(np.uint8), "I64": np.dtype("<i8")}


def write_contents(program: Contents, path: Path) -> None:
    """Write ``program`` to ``path``, atomically.

    Raises:
        ProgramError: the file cannot be written; what was there before is untouched.
    """
    try:
        write_atomically(path, encoded(program))
    except OSError as error:
        raise ProgramError(f"cannot write {path}: {error.strerror or error}") from None


def encoded(program: Contents) -> list[bytes | memoryview]:
    """The content of a file, in pieces."""
    code = np.ascontiguousarray(program.code, "<i8")
    parts = {"blob": program.blob, "code": code, "kinds": np.ascontiguousarray(program.kinds)}
    description = json.dumps(_describe(program), sort_keys=True, separators=(",", ":"))
    header = _header(parts, description, _version_of(program))
    arrays = (part.reshape(-1).view(np.uint8).data for part in parts.values())
    return [struct.pack("<Q", len(header)), header, *arrays]


def _version_of(program: Contents) -> int:
    if any(constant.coding is not None and constant.coding.order for constant in program.constants):
        return VERSION
    return PLAIN_VERSION if all(port.fills == NO_FILLS for port in program.outputs) else FILL_VERSION


def read_contents(source: str | int | bytes | bytearray | memoryview) -> Contents:
    """The program in a file, given by its path or as an open descriptor, or in bytes; checked for damage.

    Raises:
        ProgramError: missing, not a program, truncated, of another version, or damaged.
    """
    if not isinstance(source, (str, int)):
        return _decode(aligned_copy(source))
    name = f"file descriptor {source}" if isinstance(source, int) else str(source)
    try:
        data = read_or_map(source)
    except (OSError, ValueError) as error:
        raise ProgramError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}") from None
    try:
        return _decode(data)
    except ProgramError as error:
        raise ProgramError(f"{name}: {error}") from None


def _describe(program: Contents) -> dict[str, Any]:
    return {
        "dims": list(program.dims),
        "expressions": list(program.expressions),
        "buffers": [
            [ELEMENT_DTYPE[b.element], list(b.shape), b.name, None if b.perm is None else list(b.perm)]
            for b in program.buffers
        ],
        "constants": [
            [ELEMENT_DTYPE[c.element], list(c.shape), c.offset, *_describe_coding(c.coding)] for c in program.constants
        ],
        "inputs": [_describe_port(port) for port in program.inputs],
        "outputs": [_describe_port(port) for port in program.outputs],
        "nodes": list(program.nodes),
        "source": dict(program.source),
    }


def _describe_coding(coding: Coding | None) -> tuple[int, ...]:
    if coding is None:
        return ()
    if coding.order:
        return coding
    return coding[:3] if coding.block else coding[:2]


def _describe_port(port: Port) -> list[Any]:
    if port.fills != NO_FILLS:
        fills = [None if fill is None else repr(fill) for fill in port.fills]
        return [port.name, port.dtype, list(port.shape), port.buffer, port.scale, port.zero_point, None, fills]
    if port.axis is None:
        plain = [port.name, port.dtype, list(port.shape), port.buffer, port.scale, port.zero_point]
        if port.labels is not None:
            return [*plain, port.labels._asdict()]
        return plain if port.only is None else [*plain, {"only": port.only}]
    columns = [list(port.scale), list(port.zero_point)]  # type: ignore[arg-type]
    return [port.name, port.dtype, list(port.shape), port.buffer, *columns, port.axis]


def _checksum(parts: Iterable[NDArray[Any]], description: str) -> str:
    crc = zlib.crc32(description.encode())
    for part in parts:
        crc = zlib.crc32(part.reshape(-1).view(np.uint8).data, crc)
    return f"{crc:08x}"


def _header(parts: Mapping[str, NDArray[Any]], description: str, version: int = PLAIN_VERSION) -> bytes:
    names = {dtype: name for name, dtype in _SAFETENSORS_DTYPE.items()}
    metadata = {
        "checksum": _checksum(parts.values(), description),
        "format": FORMAT,
        "program": description,
        "version": str(version),
    }
    entries: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for name, part in parts.items():
        entries[name] = {
            "dtype": names[part.dtype],
            "shape": list(part.shape),
            "data_offsets": [offset, offset + part.nbytes],
        }
        offset += part.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-(len(text) + 8) % ALIGNMENT)


def write_atomically(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write a file whole or not at all: what was there before stays until all of it is written."""
    import tempfile
    from pathlib import Path

    handle, temporary = tempfile.mkstemp(dir=path.parent or Path(), prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _decode(data: NDArray[np.uint8]) -> Contents:
    if data[:4].tobytes() == MIXED_MAGIC:
        raise ProgramError(_refusal_of_mixed(data))
    length = struct.unpack("<Q", data[:8].tobytes())[0] if data.size >= 8 else 0
    if not 2 <= length <= min(_MAX_HEADER, data.size - 8):
        raise ProgramError("not a .qprog file, or truncated")
    entries = _json(data[8 : 8 + length].tobytes())
    metadata = _field(entries, "__metadata__", dict)
    if metadata.get("format") != FORMAT:
        raise ProgramError("a safetensors file, but not a program (.qprog)")
    if metadata.get("version") not in map(str, _VERSIONS):
        raise ProgramError(
            f"program version {metadata.get('version')}; this machine reads version {PLAIN_VERSION} to {VERSION}: "
            "compile the model again"
        )
    parts = {name: _tensor(entries, name, data[8 + length :]) for name in ("blob", "code", "kinds")}
    if sum(part.nbytes for part in parts.values()) != data.size - 8 - length:
        raise ProgramError("truncated, or bytes follow the program")
    description = _field(metadata, "program", str)
    if metadata.get("checksum") != _checksum(parts.values(), description):
        raise ProgramError("damaged: the checksum does not fit the content")
    return _program(_json(description.encode()), parts)


def _refusal_of_mixed(data: NDArray[np.uint8]) -> str:
    """What a zip archive is: the first entry of a mixed program, stored as it is, tells what is outside."""
    head = data[:_ENTRY].tobytes().ljust(_ENTRY, b"\0")
    size, name, extra = struct.unpack("<18xI4xHH", head)
    start = _ENTRY + name + extra
    try:
        manifest = json.loads(data[start : start + size].tobytes())
        operators = ", ".join(map(str, manifest["operators"]))
        segments = sum(part["kind"] == "integer" for part in manifest["parts"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "a zip archive, not a .qprog file of integers alone"
    return (
        f"a mixed program: {segments} integer segment(s), and on onnxruntime {operators}; this machine runs integers "
        "alone: run it with qrun or qcompiler.run, which the compiler brings"
    )


def _json(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ProgramError("damaged: its description is not JSON") from None
    if not isinstance(value, dict):
        raise ProgramError("damaged: its description is not a JSON object")
    return value


def _field(owner: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    value = owner.get(name)
    if not isinstance(value, kind):
        raise ProgramError(f"damaged: '{name}' is missing or of the wrong kind")
    return value


def _tensor(entries: Mapping[str, Any], name: str, data: NDArray[np.uint8]) -> NDArray[Any]:
    entry = _field(entries, name, dict)
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if dtype not in _SAFETENSORS_DTYPE or not whole_numbers(shape) or not whole_numbers(offsets) or len(offsets) != 2:
        raise ProgramError(f"damaged: the tensor '{name}' is described wrongly")
    start, end = offsets
    if not 0 <= start <= end <= data.size:
        raise ProgramError("truncated: a tensor ends behind the file")
    kind = _SAFETENSORS_DTYPE[dtype]
    if end - start != prod(shape) * kind.itemsize:
        raise ProgramError(f"damaged: the tensor '{name}' has another size than its shape")
    raw = data[start:end]
    return (raw if kind.itemsize == 1 else raw.copy().view(kind)).reshape(shape)


def _program(text: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Contents:
    code, kinds, blob = parts["code"], parts["kinds"], parts["blob"]
    nodes = _names(_field(text, "nodes", list))
    dims = _names(_field(text, "dims", list))
    if (
        code.dtype != np.int64
        or kinds.dtype != np.uint8
        or code.shape != (len(nodes), WIDTH)
        or kinds.shape != code.shape
        or blob.ndim != 1
    ):
        raise ProgramError("damaged: the instruction table has another shape than its description")
    buffers = tuple(_buffer(item, dims) for item in _field(text, "buffers", list))
    constants = tuple(_constant(item, blob.size) for item in _field(text, "constants", list))
    return Contents(
        dims=dims,
        expressions=expressions(_field(text, "expressions", list), dims),
        code=code,
        kinds=kinds,
        blob=blob,
        buffers=buffers,
        constants=constants,
        inputs=ports(_field(text, "inputs", list), dims, len(buffers)),
        outputs=ports(_field(text, "outputs", list), dims, len(buffers)),
        nodes=nodes,
        source=_field(text, "source", dict),
    )


def _names(values: list[Any]) -> tuple[str, ...]:
    if not all(isinstance(value, str) for value in values):
        raise ProgramError("damaged: a name is not text")
    return tuple(values)


def _buffer(item: Any, dims: tuple[str, ...]) -> BufferInfo:
    if not isinstance(item, list) or len(item) != 4 or item[0] not in _OF_DTYPE or not isinstance(item[2], str):
        raise ProgramError("damaged: a buffer is described wrongly")
    shape, perm = expressions(item[1], dims), item[3]
    if perm is not None and (not whole_numbers(perm) or sorted(perm) != list(range(len(shape)))):
        raise ProgramError(f"damaged: the axis order of '{item[2]}' is no permutation")
    return BufferInfo(_OF_DTYPE[item[0]], shape, item[2], None if perm is None else tuple(perm))


def _constant(item: Any, blob_size: int) -> ConstantInfo:
    if (
        not isinstance(item, list)
        or len(item) not in (3, 5, 6, 7)
        or item[0] not in _OF_DTYPE
        or not all(map(whole_numbers, (item[1], item[2:])))
    ):
        raise ProgramError("damaged: a constant is described wrongly")
    dtype, shape, offset, *coding = item
    if coding and (
        dtype not in CODED_TYPES
        or coding[0] not in CODE_BITS
        or 0 in shape
        or not _sound_tables(dtype, shape, *coding[1:])
    ):
        raise ProgramError("damaged: the codes of a constant are described wrongly")
    info = ConstantInfo(Element(_OF_DTYPE[dtype]), tuple(shape), offset, Coding(*coding) if coding else None)
    if info.offset % ALIGNMENT or info.offset + info.stored_bytes > blob_size:
        raise ProgramError("damaged: a constant lies outside the blob")
    return info


def _sound_tables(dtype: str, shape: list[int], tables: int, block: int | None = None, order: int = 0) -> bool:
    """One table, one for each row, those that the blocks of a matrix share, or one of differences."""
    if order:
        return dtype == "int16" and len(shape) == tables == 1 and block == 0 and order in ORDERS
    if block is None:
        return tables in (1, *shape[:1])
    return dtype == "int8" and len(shape) > 1 and tables == MOST_TABLES and block in BLOCKS


