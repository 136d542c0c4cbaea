"""Everything the compiler may refuse, in one place.

Each message is one line that names the node, the file or the option, says what is wrong and what to do. The command
line prints it and exits with status 2; nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches


class QCompilerError(Exception):
    """Base of every error a user of the compiler may meet."""


class ModelError(QCompilerError):
    """The model file cannot be read, is not ONNX, or holds what no compiler could accept."""


class OptionError(QCompilerError):
    """An option, a pipeline text or an output path is wrong."""


class DataError(QCompilerError):
    """Calibration data or feeds do not fit the model: name, dtype, rank, NaN, or none at all."""


class UnsupportedError(QCompilerError):
    """The model is fine, but this output form cannot express one of its nodes."""


class NoIntegerFormError(UnsupportedError):
    """Some nodes have no integer form.

    Attributes:
        nodes: the reason by the node's name.
    """

    def __init__(self, text: str, nodes: Mapping[str, str]) -> None:
        super().__init__(text)
        self.nodes = dict(nodes)


class ExportError(QCompilerError):
    """The compiled model does not load or run; it was therefore not written."""


class VerifyError(QCompilerError):
    """A graph breaks a rule of its stage."""

    def __init__(self, stage: str, where: str, rule: str) -> None:
        super().__init__(f"{where}: breaks a rule of stage {stage}: {rule}")
        self.stage, self.where, self.rule = stage, where, rule


class PassError(QCompilerError):
    """A pass failed, or left a graph behind that its stage does not admit."""

    def __init__(self, name: str, earlier: Sequence[str], cause: Exception) -> None:
        before = f" after {', '.join(earlier)}" if earlier else ""
        super().__init__(f"pass '{name}'{before}: {cause}")
        self.name, self.earlier = name, tuple(earlier)


def one_line(error: object, most: int = 300) -> str:
    """An error's text on one line, cut after ``most`` characters."""
    return " ".join(str(error).split())[:most]


def suggestion(text: str, known: Iterable[str]) -> str:
    """`` (did you mean 'int4'?)`` with the known name nearest to ``text``; empty where none is near."""
    near = get_close_matches(text, list(known), 1)
    return f" (did you mean '{near[0]}'?)" if near and near[0] != text else ""
