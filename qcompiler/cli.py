"""`qcompile`, `qrun`, `qdiff`: thin commands over `qcompiler.compile`, the machine and the measurements."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from qcompiler.errors import OptionError, QCompilerError
from qcompiler.runtime.errors import MachineError

BAD_INPUT = 2
Level = Annotated[int, typer.Option("-O", min=0, max=3, help="Effort: 0 rounds to nearest, 3 searches.")]
Outputs = Annotated[
    list[Path],
    typer.Option("-o", "--output", help="Result: .onnx for any runtime, .qprog for the machine; may be given twice."),
]
Calibration = Annotated[
    str | None, typer.Option("--calib", help="Calibration feeds: a .npz, a folder of .npz/.npy, or module:function.")
]
Feeds = Annotated[
    str | None,
    typer.Option("--feeds", help="Feeds: a .npz, a folder, or module:function. Default: made up from the model."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of a table.")]


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Bad input ends in one line on stderr and status 2."""
    try:
        yield
    except (QCompilerError, MachineError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
    except OSError as error:
        print(f"error: {error.filename or 'file system'}: {error.strerror}", file=sys.stderr)  # noqa: T201
    else:
        return
    raise typer.Exit(BAD_INPUT)


def application(command: Callable[..., None]) -> typer.Typer:
    """The command-line application of one command."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    return app


def qcompile() -> None:
    """Entry point of the command `qcompile`; this module as a script is the process that does it."""
    from qcompiler.commands.apart import run_apart

    raise SystemExit(run_apart("qcompiler.cli", "qcompile", sys.argv[1:]))


def qrun() -> None:
    """Entry point of the command `qrun`."""
    application(run_command)()


def qdiff() -> None:
    """Entry point of the command `qdiff`."""
    application(diff_command)()


def compile_command(
    model: Annotated[Path, typer.Argument(help="A float ONNX model.")],
    output: Outputs,
    calib: Calibration = None,
    level: Level = 2,
    form: Annotated[
        str,
        typer.Option("--format", help="What .onnx holds: qdq (fast everywhere) or integer (integer arithmetic alone)."),
    ] = "qdq",
    passes: Annotated[
        str | None, typer.Option(help="A pipeline instead of a preset: 'normalize,my_pkg.mod:MyPass(x=1),quantize'.")
    ] = None,
    weights: Annotated[
        str, typer.Option(help="Grid of the weights: int8, int4, nf4, kmeans4, power4, int3, …; auto: by budget.")
    ] = "int8",
    block: Annotated[
        int,
        typer.Option(
            help="With weights of at most 4 bits: a scale for each block of 32, 64 or 128 weights of a channel."
        ),
    ] = 0,
    activations: Annotated[
        str, typer.Option(help="Activations: uint8, int8, int16; uint4 and power4: what layers multiply has 4 bits.")
    ] = "uint8",
    size_budget: Annotated[
        str | None, typer.Option(help="With --weights auto: bytes of the weights, as a share of 8 bits: 50%.")
    ] = None,
    latency_budget: Annotated[
        str | None,
        typer.Option(
            help="With --weights auto: time of the layers on the machine, measured here, as a share of that with 8 "
            "bits: 80%.",
        ),
    ] = None,
    latency_costs: Annotated[
        Path | None, typer.Option(help="With --latency-budget: take the times from this report, measure none.")
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(help="With --weights auto: the smallest size with at most this relative output error."),
    ] = None,
    bundle: Annotated[
        str, typer.Option(help="Replace blocks of layers by cheaper ones fitted in closed form: auto, off.")
    ] = "off",
    bundle_error: Annotated[
        float | None, typer.Option(help="With --bundle auto: squared relative error of a block and the outputs; 0.02.")
    ] = None,
    widen: Annotated[str, typer.Option(help="16-bit tensors: auto, off, or at most so many.")] = "auto",
    avoid_saturation: Annotated[
        bool, typer.Option(help="Keep .onnx weights exact on CPUs whose int8 multiply saturates.")
    ] = True,
    dim: Annotated[
        list[str] | None,
        typer.Option("--dim", help="Size of a symbolic dimension: batch=1; or its range: length=1..512."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Source of every random choice.")] = 0,
    report: Annotated[Path | None, typer.Option(help="Also write the report to this JSON file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing outputs.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Prove every exact pass on one feed with onnxruntime.")
    ] = False,
    print_after: Annotated[str | None, typer.Option(help="List the graph after this pass ('all': after each).")] = None,
    time_passes: Annotated[bool, typer.Option("--time-passes", help="Print how long each pass took.")] = False,
    as_json: Json = False,
) -> None:
    """Compile a float ONNX model into an integer one."""
    with _one_line_errors():
        from qcompiler.api import Options
        from qcompiler.commands.compile import CompileRequest, compile_and_write

        by_size, by_time = _share("--size-budget", size_budget), _share("--latency-budget", latency_budget)
        costs = None if latency_costs is None else str(latency_costs)
        options = Options(
            level=level, passes=passes, form=_form(form), weights=weights, block=block, activations=activations,
            widen=_widen(widen),
            avoid_saturation=avoid_saturation, size_budget=by_size, latency_budget=by_time, latency_costs=costs,
            max_loss=max_loss,
            bundle=bundle, bundle_error=bundle_error, seed=seed, verify=verify, dims=tuple(dim or ()),
        )  # fmt: skip
        request = CompileRequest(model, tuple(output), calib, options, report, force, print_after, time_passes, as_json)
        compile_and_write(request, Console(quiet=as_json), Console(stderr=True))


def _form(text: str) -> Literal["qdq", "integer"]:
    if text == "qdq":
        return "qdq"
    if text == "integer":
        return "integer"
    raise OptionError(f"--format {text}: must be qdq or integer")


def _share(option: str, text: str | None) -> float | None:
    """``50%`` or ``0.5``."""
    if text is None:
        return None
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        of = "size" if option == "--size-budget" else "time"
        raise OptionError(f"{option} {text}: must be a share of the 8-bit {of}, such as 50% or 0.5")
    return share


def _widen(text: str) -> str | int:
    if text in ("auto", "off"):
        return text
    if text.isdigit():
        return int(text)
    raise OptionError(f"--widen {text}: must be auto, off, or a number of tensors")


def run_command(
    model: Annotated[Path, typer.Argument(help="A .qprog, or an .onnx with quantized operators.")],
    feeds: Feeds = None,
    on: Annotated[str, typer.Option("--on", help="machine, or onnxruntime (.onnx only).")] = "machine",
    repeat: Annotated[
        int, typer.Option("-n", "--repeat", min=1, help="Runs of each feed; the median time is shown.")
    ] = 1,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default="as many as there are cores, at most 4",
            help="The most threads that share one run on the machine, where that is faster; the outputs are the same.",
        ),
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the outputs of all feeds to this .npz, stacked.")] = None,
    as_json: Json = False,
) -> None:
    """Run a program or a quantized model on feeds; show time, memory and outputs."""
    with _one_line_errors():
        from qcompiler.commands.executors import executor_of
        from qcompiler.commands.run import run_and_show

        executor = executor_of(model, on, threads)
        _show(run_and_show(executor, feeds, repeat, save), as_json)


def diff_command(
    first: Annotated[Path, typer.Argument(help="The reference: .onnx or .qprog.")],
    second: Annotated[Path, typer.Argument(help="The other: .onnx or .qprog.")],
    feeds: Feeds = None,
    count: Annotated[int, typer.Option("-n", min=1, help="How many layers to list, worst first.")] = 10,
    as_json: Json = False,
) -> None:
    """Compare two models on the same feeds: SQNR of each output and of each layer, worst layer first."""
    with _one_line_errors():
        from qcompiler.commands.diff import compare

        _show(compare(first, second, feeds, count), as_json)


def _show(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, indent=1))  # noqa: T201
        return
    from qcompiler.report.terminal import show_mapping

    show_mapping(result, Console())


if __name__ == "__main__":
    application(compile_command)(prog_name="qcompile")
