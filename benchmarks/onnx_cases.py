"""Compiles every float operator case of ONNX's own test suite and counts what happens.

    python -m benchmarks.onnx_cases [--machine] [--frozen] [--match SUBSTRING] [--list wrong]

A case counts as *compiled and run* when what the ``.onnx`` form, or with ``--machine`` the program of the integer
machine, gives is within the quantization error of what onnxruntime gives for the float model (*as a mixed program*
where some of it has no integer form and the rest has), *refused* when there was one clear error line, *float* when
nothing in it was quantized. Anything else is a defect. The quantization error is a few steps of an 8-bit grid over
each output, plus what the float model itself does when its inputs move by a step of their grids (a steep or
discontinuous function makes a large error of a small one; a comparison of almost equal numbers turns over), or an
error `CLEAN_DB` below the output (scores that mask themselves reach far beyond what is left).
``--frozen`` turns every input but the first into an initializer, as weights are in real models.
"""

from __future__ import annotations

import argparse
import collections
import signal
import traceback
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.backend.test.case.node import collect_testcases

from qcompiler import run
from qcompiler.api import Options, compile
from qcompiler.errors import QCompilerError
from qcompiler.graph.runner import Runner
from qcompiler.report.measure import decibels

SECONDS = 60
STEPS = 6
"""Allowed error in steps of an 8-bit grid over the output's range; one layer rounds its input, its weights and its
output.
"""

CLEAN_DB = 30
"""SQNR from which an output is right whatever its largest error."""

Feed = dict[str, NDArray[Any]]


class Hang(Exception):
    """A case took longer than `SECONDS`."""


def cases() -> Iterator[tuple[str, onnx.ModelProto, list[NDArray[Any]], list[NDArray[Any]]]]:
    """(name, model, inputs, expected outputs) of each case whose model has float tensors and plain arrays."""
    for case in collect_testcases(None):
        model = case.model
        if model is None or not case.data_sets:
            continue
        inputs, outputs = ([_plain(value) for value in values] for values in case.data_sets[0])
        floats = [value for value in inputs if isinstance(value, np.ndarray) and value.dtype == np.float32]
        if floats and all(isinstance(value, np.ndarray) for value in (*inputs, *outputs)):
            yield case.name, model, inputs, outputs


def _plain(value: Any) -> Any:
    """A NumPy scalar as an array."""
    return np.asarray(value) if isinstance(value, np.generic) else value


def freeze(model: onnx.ModelProto, name: str, array: NDArray[Any]) -> None:
    """Turn an input into an initializer."""
    model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model.graph.input.remove(next(value for value in model.graph.input if value.name == name))


def perturbed(feed: Feed, draw: int) -> Feed:
    """The feed with each float input moved by at most one step of its 8-bit grid."""
    rng = np.random.default_rng(draw)
    moved = {}
    for name, array in feed.items():
        moved[name] = array
        if array.dtype == np.float32 and array.size:
            low, high = min(float(array.min()), 0.0), max(float(array.max()), 0.0)
            moved[name] = np.asarray(array + rng.uniform(-1, 1, array.shape) * (high - low) / 255, np.float32)
    return moved


def sensitivity(runner: Runner, feed: Feed, outputs: Feed, draws: int = 16) -> Feed:
    """Largest change of each output element over perturbed feeds; infinity for one of another type that changes at
    all.
    """
    largest = {name: np.zeros(value.shape) for name, value in outputs.items() if value.dtype.kind in "fiub"}
    for draw in range(draws):
        try:
            moved = runner.run(perturbed(feed, draw))
        except QCompilerError:
            continue  # an input such as the scale of a Resize does not move
        for name, change in largest.items():
            if moved[name].shape == change.shape:
                change[...] = np.fmax(change, _change(outputs[name], moved[name]))
    return largest


def _change(before: NDArray[Any], after: NDArray[Any]) -> NDArray[Any]:
    if before.dtype != np.float32:
        return np.asarray(np.where(before == after, 0.0, np.inf))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(np.nan_to_num(after - before, nan=np.inf)))


def within(expected: NDArray[Any], got: NDArray[Any], extra: NDArray[Any] | float = 0.0) -> bool:
    """Equal, or at most `STEPS` steps of an 8-bit grid over the expected range plus ``extra`` apart, or `CLEAN_DB` of
    SQNR.
    """
    if expected.shape != got.shape:
        return False
    if expected.dtype != np.float32 or expected.size == 0:
        return bool(np.all((expected == got) | np.isposinf(extra)))
    finite = np.isfinite(expected)
    if not finite.any():
        return True
    low, high = min(float(expected[finite].min()), 0.0), max(float(expected[finite].max()), 0.0)
    allowed = STEPS * (high - low) / 255 + 1e-6 + np.broadcast_to(extra, expected.shape)[finite]
    error = np.abs(expected[finite] - got[finite])
    return bool(
        (error <= allowed).all() or decibels(float(np.sum(expected[finite] ** 2)), float(np.sum(error**2))) >= CLEAN_DB
    )


def judge(model: onnx.ModelProto, feed: Feed, expected: Feed, *, machine: bool, mixed: bool = False) -> str:
    """What became of one case, in one of the two forms; ``mixed``: a program may be a mixed one."""
    try:
        runner = Runner(model)
        float_outputs = runner.run(feed)
    except QCompilerError:
        return "not run by onnxruntime"
    if any(not within(expected[name], value) for name, value in float_outputs.items()):
        return "onnxruntime differs from the expected output"
    try:
        result = compile(model, data=[feed], options=Options(mixed=mixed), for_onnx=not machine)
        outputs = run(result.mixed or result.program, feed) if machine else Runner(result.graph).run(feed)
    except QCompilerError as error:
        return f"refused: {error}"
    extra = sensitivity(runner, feed, float_outputs)
    wrong = [name for name, value in outputs.items() if not within(float_outputs[name], value, extra.get(name, 0.0))]
    if wrong:
        return f"wrong: {wrong[0]}"
    quantized = machine or any(node.op == "DequantizeLinear" for node in result.graph.nodes)
    return "compiled and run" if quantized else "float"


def best(model: onnx.ModelProto, feed: Feed, expected: Feed, *, machine: bool, mixed: bool = False) -> str:
    """What became of one case; where it is refused, of the same with inputs as constants, as models have them: axes,
    shapes and indices, or all inputs but the first of floats (weights).
    """
    verdict = judge(model, feed, expected, machine=machine, mixed=mixed)
    floats = [name for name, array in feed.items() if array.dtype.kind == "f"]
    for what, kept in (("integer inputs", floats), ("all inputs but one", floats[:1])):
        if not verdict.startswith("refused") or len(kept) == len(feed):
            continue
        fixed = onnx.ModelProto()
        fixed.CopyFrom(model)
        for name in [name for name in feed if name not in kept]:
            freeze(fixed, name, feed[name])
        again = judge(fixed, {name: feed[name] for name in kept}, expected, machine=machine, mixed=mixed)
        if again == "compiled and run":
            return f"{again}, {what} as constants"
        verdict = again if not again.startswith(("refused", "not run")) else verdict
    return verdict


def _alarm(_signal: int, _frame: FrameType | None) -> None:
    raise Hang


def main() -> None:
    """Print one count a verdict, and the cases of a verdict with ``--list``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frozen", action="store_true")
    parser.add_argument("--machine", action="store_true", help="compile for the integer machine and run there")
    parser.add_argument("--match", default="")
    parser.add_argument("--list", help="print the cases whose verdict starts with this; all of them with an empty text")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _alarm)
    counts: collections.Counter[str] = collections.Counter()
    for name, model, inputs, outputs in cases():
        if options.match not in name or (options.frozen and len(inputs) < 2):
            continue
        feed = {info.name: array for info, array in zip(model.graph.input, inputs, strict=False)}
        expected = {info.name: array for info, array in zip(model.graph.output, outputs, strict=False)}
        for other in list(feed)[1:] if options.frozen else []:
            freeze(model, other, feed.pop(other))
        signal.alarm(SECONDS)
        try:
            verdict = best(model, feed, expected, machine=options.machine)
            if options.machine and verdict.startswith("refused"):
                other = best(model, feed, expected, machine=True, mixed=True)
                verdict = verdict if other.startswith("refused") else f"{other}, as a mixed program"
        except Hang:
            verdict = "hang"
        except Exception as error:
            verdict = f"crash: {type(error).__name__}: {error}"
            if options.list is not None and verdict.startswith(options.list):
                traceback.print_exc()
        signal.alarm(0)
        counts[verdict.split(":")[0]] += 1
        if options.list is not None and verdict.startswith(options.list):
            print(f"{name}: {verdict}", flush=True)
    for verdict, count in counts.most_common():
        print(f"{count:6}  {verdict}")


if __name__ == "__main__":
    main()
