"""Files behind a checksum, written atomically."""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

UNFINISHED = "unfinished-"
"""How the name of a file begins that is being written."""

_CHECKSUM_BYTES = 4


def keep(path: Path, content: bytes) -> bool:
    """Write a file behind its checksum, atomically; False, with nothing left behind, where that fails."""
    import tempfile
    from pathlib import Path

    temporary = None
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED)
        with os.fdopen(handle, "wb") as file:
            file.write(_checksum(content) + content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        return False
    return True


def kept(path: str | Path) -> bytes | None:
    """What `keep` wrote; None where there is nothing that can be read, or something damaged."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        return None
    checksum, content = data[:_CHECKSUM_BYTES], data[_CHECKSUM_BYTES:]
    return content if content and _checksum(content) == checksum else None


def _checksum(content: bytes) -> bytes:
    """Tells damage: what could be forged by others is not looked at (`cache.folders`)."""
    return zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "little")
