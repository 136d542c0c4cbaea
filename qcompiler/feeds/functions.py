"""Functions of the user, named on the command line as ``module:function``."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qcompiler.errors import DataError, suggestion

__all__ = ["function_named", "is_function_name", "what_happened"]

OWN = (Path(__file__).parent.parent, Path(importlib.__file__).parent)
"""The compiler's own files, and what imports modules: no place of an error that users could mend."""


def is_function_name(text: str) -> bool:
    """Whether a text is of the form ``module:function``."""
    module, colon, function = text.partition(":")
    return bool(colon) and all(part.isidentifier() for part in [*module.split("."), function])


def function_named(text: str, purpose: str) -> Callable[..., Any]:
    """The function ``module:function``, the module sought in the working directory, too.

    Args:
        text: its name; ``is_function_name`` holds.
        purpose: what it must be, as the end of "is not a function that …".

    Raises:
        DataError: the module cannot be imported, or holds no such function; the nearest one is named.
    """
    module, _, name = text.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        there = importlib.import_module(module)
        found = getattr(there, name, None)
    except Exception as error:  # the user's module may raise anything
        raise DataError(f"{text}: cannot be imported: {what_happened(error)}") from error
    finally:
        sys.path.remove(here)
    if found is None:
        raise DataError(f"{text}: '{module}' has no function '{name}'{suggestion(name, vars(there))}")
    if not callable(found):
        raise DataError(f"{text}: '{name}' is not a function that {purpose}")
    return found  # type: ignore[no-any-return]


def what_happened(error: Exception) -> str:
    """An error of the user's own code in one line, with its place."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not set(OWN) & set(Path(frame.filename).parents) and not frame.filename.startswith("<")
    ]
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"
