"""From a quantized graph to integer operators, and from those to a program or to standard ONNX integer arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qcompiler.graph.ir import Graph
    from qcompiler.runtime import Program

__all__ = ["lower_graph", "to_integer_onnx", "to_program"]


def lower_graph(graph: Graph, sources: dict[str, str] | None = None) -> Graph:
    """The integer graph (stage INTEGER) of a quantized graph, which is left as it is.

    Args:
        graph: of stage QUANTIZED.
        sources: takes the name of the node that each integer operator was written for, by the operator's name.

    Raises:
        NoIntegerFormError: lists every node that has no integer form, and why.
    """
    from qcompiler.lowering.engine import Lowering
    from qcompiler.lowering.interpolate import interpolate_tables
    from qcompiler.lowering.prepare import prepared
    from qcompiler.lowering.rules.column_grids import COLUMNS
    from qcompiler.lowering.rules.elementwise import looked_up
    from qcompiler.lowering.rules.integers import INTEGER_RULES
    from qcompiler.lowering.rules.table import RULES
    from qcompiler.lowering.simplify import simplify

    quantized = prepared(graph)
    engine = Lowering(quantized, RULES, INTEGER_RULES, looked_up, COLUMNS)
    integer = engine.run()
    if sources is not None:
        sources.update(engine.out.sources)
    return interpolate_tables(simplify(integer))


def to_program(graph: Graph, only: Mapping[str, int] | None = None) -> Program:
    """The machine's program of an integer graph; ``only`` are inputs that must have the number given, by name.

    Raises:
        NoIntegerFormError: names the node that the machine cannot run.
    """
    from qcompiler.lowering.to_machine.emitter import Emitter
    from qcompiler.lowering.to_machine.table import EMIT_RULES

    return Emitter(graph, EMIT_RULES, {"graph": graph.name}, only or {}).run()


def to_integer_onnx(graph: Graph) -> Graph:
    """The integer graph as integer arithmetic in standard ONNX operators; equal to the program bit for bit.

    Raises:
        UnsupportedError: names the node that standard integer operators cannot express.
    """
    from qcompiler.lowering.to_onnx.products import write_integer_onnx
    from qcompiler.lowering.to_onnx.table import WRITE_RULES

    return write_integer_onnx(graph, WRITE_RULES)
