"""A measure of the user's own: one function that scores the float model, the ``.onnx`` and the program alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import DataError, OptionError, QCompilerError
from qcompiler.feeds.functions import function_named, is_function_name, what_happened
from qcompiler.feeds.sources import InputSpec, check_feed
from qcompiler.runtime.errors import MachineError

__all__ = ["Metric", "Run", "metric_named"]

Run = Callable[[Mapping[str, Any]], Mapping[str, NDArray[Any]]]
"""From inputs by name to outputs by name."""


@dataclass(frozen=True)
class Metric:
    """The user's function.

    Attributes:
        text: its name, as typed.
        function: gets ``run(feeds) -> outputs`` and returns a number, higher being better.
        specs: the inputs that ``run`` takes.
    """

    text: str
    function: Callable[[Run], Any]
    specs: tuple[InputSpec, ...]

    def score(self, run: Run, ran: str) -> float:
        """What the function says of a model.

        Args:
            run: the model.
            ran: what it is, for messages.

        Raises:
            DataError: the function fails, runs the model on what are no feeds of it, or returns no finite number.
        """
        where = f"--accuracy {self.text}, on {ran}"

        def checked(feeds: Mapping[str, Any]) -> Mapping[str, NDArray[Any]]:
            return dict(run(check_feed(feeds, self.specs, f"{where}: run(feeds)")))

        try:
            found = self.function(checked)
        except (QCompilerError, MachineError):
            raise
        except Exception as error:  # the user's function may raise anything
            raise DataError(f"{where}: {what_happened(error)}") from error
        if isinstance(found, np.ndarray) and found.ndim == 0:
            found = found[()]
        if not isinstance(found, Real | np.bool_):
            raise DataError(f"{where}: returned an object of type {type(found).__name__}; it must return a number")
        if not math.isfinite(found):
            raise DataError(f"{where}: returned {found}; it must return a finite number, higher being better")
        return float(found)


def metric_named(text: str, specs: tuple[InputSpec, ...]) -> Metric:
    """The measure ``module:function``.

    Raises:
        OptionError: the text is not of this form.
        DataError: the function cannot be imported.
    """
    if not is_function_name(text):
        raise OptionError(f"--accuracy {text}: name a function as module:function, such as my_pkg.my_mod:score")
    try:
        return Metric(text, function_named(text, "scores a model"), specs)
    except DataError as error:
        raise DataError(f"--accuracy {error}") from error
