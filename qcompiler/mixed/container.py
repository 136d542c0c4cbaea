"""A mixed program and its file: a zip archive of stored entries, a manifest first, then a file for each part.

``manifest.json`` (JSON, keys sorted) says what the parts read and write, in the order in which they run; a segment is
a ``.qprog``, a float part an ``.onnx``. Entries have no date and are not compressed, so that equal programs give equal
bytes. Each is covered by the archive's own checksum.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qcompiler.errors import ModelError
from qcompiler.records import FloatNode
from qcompiler.runtime.program.file import MIXED_MAGIC, write_atomically

__all__ = ["FORMAT", "MANIFEST", "VERSION", "Border", "MixedProgram", "Piece", "is_mixed"]

FORMAT, VERSION, MANIFEST = "qprog-mixed", 1, "manifest.json"
_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Border:
    """An input or output of the whole program: its name, numpy type (``str`` for strings) and shape."""

    name: str
    dtype: str
    shape: list[int | str] | None


@dataclass(frozen=True)
class Piece:
    """A part.

    Attributes:
        is_segment: it runs on the machine.
        inputs, outputs: names of the tensors that it reads and writes.
        content: bytes of a ``.qprog``, or of an ONNX model.
    """

    is_segment: bool
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class MixedProgram:
    """Integer segments with float parts between them.

    Attributes:
        name: of the graph.
        inputs, outputs: of all of it.
        pieces: the parts in the order in which they run.
        outside: nodes of the float parts.
        integer_share: part of all multiply-accumulates that the segments do; None where there are none at all.
        only: inputs that must have the number given (`qcompiler.feeds.switches`), by name.
    """

    name: str
    inputs: tuple[Border, ...]
    outputs: tuple[Border, ...]
    pieces: tuple[Piece, ...]
    outside: tuple[FloatNode, ...]
    integer_share: float | None
    only: Mapping[str, int] = field(default_factory=dict)

    @property
    def segments(self) -> int:
        """How many integer segments there are."""
        return sum(piece.is_segment for piece in self.pieces)

    @property
    def operators(self) -> list[str]:
        """The operators without an integer form, each once, those of most work first."""
        ranked = sorted((each for each in self.outside if not each.is_island), key=lambda each: -(each.share or 0.0))
        return list(dict.fromkeys(each.op for each in ranked))

    def to_bytes(self) -> bytes:
        """The file's content; equal programs give equal bytes."""
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            text = json.dumps(self._manifest(), sort_keys=True, separators=(",", ":"))
            archive.writestr(_entry(MANIFEST), text.encode())
            for name, piece in zip(self._files(), self.pieces, strict=True):
                archive.writestr(_entry(name), piece.content)
        return target.getvalue()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, atomically."""
        write_atomically(Path(path), [self.to_bytes()])

    def _files(self) -> list[str]:
        return [f"{index}.{'qprog' if piece.is_segment else 'onnx'}" for index, piece in enumerate(self.pieces)]

    def _manifest(self) -> dict[str, Any]:
        parts = [
            {
                "file": name, "kind": "integer" if piece.is_segment else "float", "inputs": piece.inputs,
                "outputs": piece.outputs,
            }
            for name, piece in zip(self._files(), self.pieces, strict=True)
        ]  # fmt: skip
        return {
            "format": FORMAT, "version": VERSION, "name": self.name, "parts": parts,
            "inputs": [asdict(each) for each in self.inputs], "outputs": [asdict(each) for each in self.outputs],
            "outside": [asdict(each) for each in self.outside], "operators": self.operators,
            "integer_share": self.integer_share, "only": dict(self.only),
        }  # fmt: skip

    @staticmethod
    def load(source: str | os.PathLike[str] | bytes) -> MixedProgram:
        """Read a file, or its content.

        Raises:
            ModelError: it is no mixed program, of another version, or damaged.
        """
        name = "the program" if isinstance(source, bytes) else os.fspath(source)
        try:
            with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
                return _read(archive, name)
        except (zipfile.BadZipFile, KeyError, TypeError, ValueError, EOFError, NotImplementedError) as error:
            raise ModelError(f"{name}: damaged, or no mixed program: {error}") from error


def is_mixed(path: str | os.PathLike[str]) -> bool:
    """True for a file that begins as a mixed program does."""
    with Path(path).open("rb") as file:
        return file.read(len(MIXED_MAGIC)) == MIXED_MAGIC


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.create_system, entry.external_attr = 3, 0o644 << 16
    return entry


def _read(archive: zipfile.ZipFile, name: str) -> MixedProgram:
    manifest = json.loads(archive.read(MANIFEST))
    if manifest["format"] != FORMAT:
        raise ModelError(f"{name}: a zip archive, but not a program")
    if manifest["version"] != VERSION:
        raise ModelError(
            f"{name}: mixed program of version {manifest['version']}; this compiler reads version {VERSION}: compile "
            "the model again"
        )
    pieces = tuple(
        Piece(part["kind"] == "integer", tuple(part["inputs"]), tuple(part["outputs"]), archive.read(part["file"]))
        for part in manifest["parts"]
    )
    return MixedProgram(
        manifest["name"], tuple(Border(**each) for each in manifest["inputs"]),
        tuple(Border(**each) for each in manifest["outputs"]), pieces,
        tuple(FloatNode(**each) for each in manifest["outside"]), manifest["integer_share"], manifest["only"],
    )  # fmt: skip
