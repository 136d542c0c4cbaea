"""`qcompile`, `qrun`, `qdiff`: thin commands over `qcompiler.compile`, the machine and the measurements."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand

from qcompiler.errors import QCompilerError, suggestion
from qcompiler.options import GROUPS, CompileRequest, Options, flag_of, options_of, refusal, text_of_default
from qcompiler.runtime.errors import MachineError

BAD_INPUT = 2
UsageError: Any = typer.BadParameter.__base__
"""What typer raises for arguments that it cannot read; it has had this class from two packages."""

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


class _Command(TyperCommand):
    """A command whose refusals of options are one line, too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments that are left, once all options are read into ``ctx``."""
        known = [name for param in self.params for name in (*param.opts, *param.secondary_opts)]
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            text = error.format_message().rstrip(".")
            if type(error).__name__ == "NoSuchOption":
                text = f"no such option {error.option_name}{suggestion(error.option_name, known)}"
            print(f"error: {text}; '{ctx.command_path} --help' lists all options", file=sys.stderr)  # noqa: T201
            raise typer.Exit(BAD_INPUT) from error


def application(command: Callable[..., None]) -> typer.Typer:
    """The command-line application of one command."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(cls=_Command)(command)
    return app


def qcompile() -> None:
    """Entry point of the command `qcompile`; this module as a script is the process that does it."""
    from qcompiler.commands.child_process import run_in_child

    raise SystemExit(run_in_child("qcompiler.cli", "qcompile", sys.argv[1:]))


def run_qcompile(arguments: list[str]) -> None:
    """Compile, or, where the first argument is the word `inspect`, say what a model is."""
    if arguments[:1] == ["inspect"]:
        application(inspect_command)(arguments[1:], prog_name="qcompile inspect")
    application(compile_command)(arguments, prog_name="qcompile")


def qrun() -> None:
    """Entry point of the command `qrun`."""
    application(run_command)()


def qdiff() -> None:
    """Entry point of the command `qdiff`."""
    application(diff_command)()


def compile_command(model: Path, **given: Any) -> None:
    """Compile a float ONNX model into an integer one.

    For example: qcompile model.onnx -o out.onnx --calib feeds.npz

    What a model is, and what would become integer: qcompile inspect model.onnx
    """
    with _one_line_errors():
        if given["recipe"] is not None:
            from qcompiler.commands.recipes import read_recipe

            recipe = read_recipe(given["recipe"])
        else:
            recipe = {}
        options = Options(**{entry.name: _value(entry, given, recipe) for entry in options_of(Options)})
        own = {entry.name: _value(entry, given, recipe) for entry in options_of(CompileRequest)}
        request = CompileRequest(model, options, **own)
        from qcompiler.commands.compile import compile_and_write

        compile_and_write(request, Console(quiet=request.as_json), Console(stderr=True))


def _value(entry: Field[Any], given: Mapping[str, Any], recipe: Mapping[str, Any]) -> Any:
    """The value of an option from what typer read for it, else from the recipe, else its default."""
    flag, text = flag_of(entry), given[entry.name]
    if text is None and entry.name in recipe:
        return recipe[entry.name]
    if text is None:
        return None if entry.default is MISSING else entry.default
    if flag.read is None:
        return text
    try:
        return flag.read(text)
    except ValueError as error:
        raise refusal(flag, text) from error


def _parameter(entry: Field[Any]) -> Parameter:
    """What typer reads an option from: a parameter of its type, with its names, help and default."""
    flag, required = flag_of(entry), entry.default is MISSING
    told = "" if required else f" Default: {text_of_default(entry)}."
    shown = typer.Option(
        *(flag.names if flag.kind is not bool or entry.default is False else ()), metavar=flag.metavar,
        help=f"{flag.help}{told} Example: {flag.example}", rich_help_panel=flag.group, show_default=False,
    )  # fmt: skip
    kind = flag.kind if required else flag.kind | None
    default = Parameter.empty if required else None
    return Parameter(entry.name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, shown])


def _parameters() -> list[Parameter]:
    """The model, and the options in the order of their groups."""
    model = Annotated[Path, typer.Argument(help="A float ONNX model.", show_default=False)]
    options = sorted(
        (*options_of(CompileRequest), *options_of(Options)), key=lambda entry: GROUPS.index(flag_of(entry).group)
    )
    return [Parameter("model", Parameter.POSITIONAL_OR_KEYWORD, annotation=model), *map(_parameter, options)]


setattr(compile_command, "__signature__", Signature(_parameters()))  # noqa: B010
compile_command.__annotations__ = {each.name: each.annotation for each in _parameters()}


def inspect_command(
    model: Annotated[Path, typer.Argument(help="A float ONNX model, or a .qprog.", show_default=False)],
    dim: Annotated[
        list[str] | None, typer.Option("--dim", metavar="NAME=SIZE", help="Size of a symbolic dimension, or its range.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a model is: inputs, work, operators, what would be integer; then a command and feeds to begin with. Of
    a .qprog it says whether it is integer from input to output, and what runs it.

    For example: qcompile inspect model.onnx
    """
    with _one_line_errors():
        if model.suffix == ".qprog":
            _show_program(model, as_json)
            return
        from qcompiler.commands.inspection import inspect, rows
        from qcompiler.report.terminal import show_rows

        found = inspect(model, dim or ())
        if as_json:
            print(json.dumps(found.as_dict(), indent=1))  # noqa: T201
            return
        show_rows(rows(found), Console())
        print(f"\n{found.template}")  # noqa: T201


def _show_program(path: Path, as_json: bool) -> None:
    from qcompiler.commands.program_inspection import inspect_program, program_rows
    from qcompiler.report.terminal import show_rows

    found = inspect_program(path)
    if as_json:
        print(json.dumps(found.as_dict(), indent=1))  # noqa: T201
        return
    show_rows(program_rows(found), Console())


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
    """Run a program or a quantized model on feeds; show time, memory and outputs.

    For example: qrun out.qprog --feeds feeds.npz -n 20
    """
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
    report: Annotated[
        Path | None,
        typer.Option(help="Write the comparison: .html for people, .json for machines.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing report.")] = False,
    as_json: Json = False,
) -> None:
    """Compare two models on the same feeds: each output, where along the layers they part, and the worst feeds.

    For example: qdiff model.onnx out.onnx --feeds feeds.npz --report diff.html
    """
    with _one_line_errors():
        from qcompiler.commands.diff import DiffRequest, compare_and_write, summary

        found = compare_and_write(DiffRequest(first, second, feeds, count, report, force))
        _show(found.as_dict(count) if as_json else summary(found, count), as_json)


def _show(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, indent=1))  # noqa: T201
        return
    from qcompiler.report.terminal import show_mapping

    show_mapping(result, Console())


if __name__ == "__main__":
    run_qcompile(sys.argv[1:])
