"""What `qcompile` does for ``.c``: the sizes that it has, and programs that are compiled already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qcompiler.c_output import write_c
from qcompiler.c_output.c_source import check_dims
from qcompiler.errors import OptionError
from qcompiler.onnx_io.importer import load_graph
from qcompiler.options import CompileRequest, Options, command_of
from qcompiler.runtime import Program
from qcompiler.shapes.fixed import parse_sizes


def sizes_of_c(request: CompileRequest) -> dict[str, int]:
    """The sizes of ``--c-dim``.

    Raises:
        OptionError: one is a range, or none at all.
    """
    try:
        sizes = parse_sizes(request.c_dims)
    except OptionError as error:
        raise OptionError(str(error).replace("--dim", "--c-dim", 1)) from None
    ranged = next((name for name, (low, high) in sizes.items() if low != high), None)
    if ranged is not None:
        raise OptionError(f"--c-dim {ranged}: is a range; C has one size")
    return {name: low for name, (low, _) in sizes.items()}


def check_sizes_of_c(request: CompileRequest) -> None:
    """Refuse a ``.c`` whose sizes are not known before the work begins, and sizes where there is no ``.c``.

    Raises:
        OptionError: names the dimension.
    """
    sizes = sizes_of_c(request)
    if not any(path.suffix == ".c" for path in request.outputs):
        if sizes:
            raise OptionError(f"--c-dim {next(iter(sizes))}: is of a .c; add -o model.c, or use --dim")
        return
    fixed = {name: low for name, (low, high) in parse_sizes(request.options.dims).items() if low == high}
    inputs = load_graph(request.model).inputs
    symbols = dict.fromkeys(size for tensor in inputs for size in tensor.shape or () if isinstance(size, str))
    unknown = next((name for name in sizes if name not in symbols or name in fixed), None)
    if unknown is not None:
        raise OptionError(
            f"--c-dim {unknown}: no input has a dimension of that name whose size is open; "
            f"those are {', '.join(name for name in symbols if name not in fixed) or 'none'}"
        )
    check_dims((name for name in symbols if name not in fixed), sizes)


def write_program_as_c(request: CompileRequest, targets: Sequence[Path]) -> None:
    """Write a ``.qprog`` as ``.c``.

    Raises:
        OptionError: another output or option is asked for.
    """
    other = next((target for target in targets if target.suffix != ".c"), None)
    if other is not None:
        raise OptionError(f"-o {other}: {request.model} is compiled already; it can be written as .c")
    alone = CompileRequest(request.model, Options(), request.outputs, c_dims=request.c_dims, force=request.force)
    if request != alone:
        raise OptionError(
            f"{request.model} is compiled already, so that only -o, --c-dim and --force apply: {command_of(alone)}"
        )
    program, sizes = Program.load(request.model), sizes_of_c(request)
    for target in targets:
        write_c(program, target, sizes)
