"""Where a program's time goes, instruction by instruction.

    python -m benchmarks.profile out.qprog [--repeat 50] [--top 30] [--by-opcode]

One thread; the fastest of many runs of each instruction alone, with its operands as warm as the instruction before left
them. *GMAC/s* are multiplications of a convolution or a matrix product a nanosecond; `benchmarks/kernels.py` says what
this core could do. Float inputs are random.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from qcompiler.runtime.binding.bind import bind
from qcompiler.runtime.errors import MachineError, ProgramError
from qcompiler.runtime.instructions.opcodes import BY_NUMBER
from qcompiler.runtime.session import Session


class Timing(NamedTuple):
    """One instruction, or all of one kind: what it is, on what sizes, its multiplications and nanoseconds."""

    opcode: str
    what: str
    macs: int
    time: int


def random_feed(session: Session, **dims: int) -> dict[str, NDArray[Any]]:
    """Inputs of the program: normal floats, integers 0."""
    feed: dict[str, NDArray[Any]] = {}
    rng = np.random.default_rng(0)
    for port in session.program.inputs:
        shape, dtype = bind(session.program, **dims).shapes[port.buffer], np.dtype(port.dtype)
        feed[port.name] = rng.normal(size=shape).astype(dtype) if dtype.kind == "f" else np.zeros(shape, dtype)
    return feed


def sizes(opcode: str, f: dict[str, int]) -> str:
    """The sizes that matter, in a few words."""
    if "kernel_h" in f:
        kernel, stride = f"{f['kernel_h']}x{f['kernel_w']}", f"/{f['stride_h']}" if f["stride_h"] > 1 else ""
        groups = f" in {f['groups']} groups" if f.get("groups", 1) > 1 else ""
        return (
            f"{kernel}{stride}, {f['in_h']}x{f['in_w']}x{f['in_c']} -> "
            f"{f['out_h']}x{f['out_w']}x{f.get('out_c', f['in_c'])}{groups}"
        )
    if opcode in ("gemm", "matmul"):
        return f"{prod(f.get(f'b{i}', 1) for i in range(4))} x [{f['rows']}, {f['k']}] [{f['k']}, {f['cols']}]"
    if "d0" in f:
        return "x".join(str(f[f"d{i}"]) for i in range(6) if f[f"d{i}"] != 1)
    return ", ".join(f"{name} {f[name]}" for name in ("outer", "k", "inner", "count") if name in f)


def multiplications(opcode: str, f: dict[str, int]) -> int:
    """Of a convolution or a matrix product; else 0."""
    if opcode == "conv":
        return (
            f["batch"]
            * f["out_h"]
            * f["out_w"]
            * f["out_c"]
            * f["kernel_h"]
            * f["kernel_w"]
            * (f["in_c"] // f["groups"])
        )
    if opcode in ("gemm", "matmul"):
        return prod(f.get(f"b{i}", 1) for i in range(4)) * f["rows"] * f["k"] * f["cols"]
    return 0


def measure(session: Session, repeat: int, **dims: int) -> list[Timing]:
    """One timing for each instruction."""
    bound, result = bind(session.program, **dims), []
    for row, (name, _, time) in zip(bound.code, session.profile(random_feed(session, **dims), repeat), strict=True):
        fields = BY_NUMBER[int(row[0])].row(row.tolist())
        result.append(Timing(name, sizes(name, fields), multiplications(name, fields), time))
    return result


def kind_of(timing: Timing) -> str:
    """The opcode; of convolutions also the kernel, and whether they have groups."""
    kernel = timing.what.split(",")[0] if timing.opcode == "conv" else ""
    return f"{timing.opcode} {kernel}{' grouped' if 'groups' in timing.what else ''}".strip()


def by_kind(timings: Iterable[Timing]) -> list[Timing]:
    """Sums over the instructions of a kind."""
    sums: dict[str, list[Timing]] = {}
    for timing in timings:
        sums.setdefault(kind_of(timing), []).append(timing)
    return [
        Timing(kind, f"{len(all_)} instructions", sum(t.macs for t in all_), sum(t.time for t in all_))
        for kind, all_ in sums.items()
    ]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile", description="Time each instruction of a program."
    )
    parser.add_argument("program", type=Path)
    parser.add_argument("--repeat", type=int, default=50, help="runs of which the fastest counts")
    parser.add_argument("--top", type=int, default=30, help="lines to print")
    parser.add_argument("--by-opcode", action="store_true", help="sum the instructions of a kind")
    parser.add_argument(
        "--dims", nargs="*", default=[], metavar="NAME=SIZE", help="sizes of the symbolic dimensions; default: 1"
    )
    chosen = parser.parse_args()
    dims = {name: int(size) for name, _, size in (text.partition("=") for text in chosen.dims)}
    try:
        session = Session(chosen.program)
        timings = measure(session, chosen.repeat, **{**dict.fromkeys(session.program.dims, 1), **dims})
    except (MachineError, ProgramError, OSError) as error:
        parser.error(str(error))
    total = sum(t.time for t in timings)
    table = Table(
        "opcode",
        "sizes",
        "µs",
        "share",
        "GMAC/s",
        title=f"{chosen.program.name}: {total / 1e6:.2f} ms, {len(timings)} instructions",
    )
    for t in sorted(by_kind(timings) if chosen.by_opcode else timings, key=lambda t: -t.time)[: chosen.top]:
        table.add_row(
            t.opcode,
            t.what,
            f"{t.time / 1000:.1f}",
            f"{t.time / total:.1%}",
            f"{t.macs / t.time:.0f}" if t.macs else "",
        )
    Console(width=130).print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
