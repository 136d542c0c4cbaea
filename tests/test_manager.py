from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from qcompiler.errors import DataError, OptionError, PassError
from qcompiler.graph.ir import Constant, Graph, Node, Stage, Variable
from qcompiler.manager import Manager
from qcompiler.pass_base import Context, Pass
from tests.helpers.graphs import graph_of, ops

TEXT = "g (float[N, 4] x) => (float[N, 4] y) { h = Relu(x)  y = Add(h, h) }"
FEED = {"x": np.linspace(-2, 2, 8, dtype=np.float32).reshape(2, 4)}


@dataclass(frozen=True)
class ReplaceRelu(Pass):
    name: ClassVar[str] = "replace-relu"
    exact: ClassVar[bool] = True
    op: str = "Relu"

    def run(self, graph: Graph, ctx: Context) -> bool:
        for node in graph.nodes:
            if node.op == "Relu":
                ctx.declined(node, "only as a test") if self.op == "Relu" else setattr(node, "op", self.op)
        return self.op != "Relu"


@dataclass(frozen=True)
class Break(Pass):
    name: ClassVar[str] = "break"

    def run(self, graph: Graph, ctx: Context) -> bool:
        graph.nodes[-1].inputs[1] = Variable("nowhere", np.float32)
        return True


@dataclass(frozen=True)
class Crash(Pass):
    name: ClassVar[str] = "crash"

    def run(self, graph: Graph, ctx: Context) -> bool:
        raise KeyError("lost")


@dataclass(frozen=True)
class BadData(Pass):
    name: ClassVar[str] = "bad-data"

    def run(self, graph: Graph, ctx: Context) -> bool:
        raise DataError("feed 0: no input 'x'")


@dataclass(frozen=True)
class Late(Pass):
    name: ClassVar[str] = "late"
    requires: ClassVar[Stage] = Stage.QUANTIZED
    ensures: ClassVar[Stage] = Stage.QUANTIZED

    def run(self, graph: Graph, ctx: Context) -> bool:
        return False


@dataclass(frozen=True)
class LeaveRubbish(Pass):
    name: ClassVar[str] = "leave-rubbish"

    def run(self, graph: Graph, ctx: Context) -> bool:
        graph.nodes.insert(
            0,
            Node(
                "Neg", "dead", inputs=[Constant("c", np.ones(1, np.float32))], outputs=[Variable("unused", np.float32)]
            ),
        )
        return True


def test_runs_in_order_records_timings_and_removes_what_is_dead() -> None:
    graph, ctx, seen = graph_of(TEXT), Context(), []
    stage = Manager(
        (LeaveRubbish(), ReplaceRelu()), on_pass=lambda step, _graph, changed: seen.append((step.name, changed))
    ).run(graph, ctx)
    assert stage == Stage.FLOAT
    assert ops(graph) == ["Relu", "Add"]
    assert seen == [("leave-rubbish", True), ("replace-relu", False)]
    assert [timing.name for timing in ctx.report.timings] == ["leave-rubbish", "replace-relu"]
    assert ctx.report.declined[0].pass_name == "replace-relu"


def test_a_pass_that_breaks_the_graph_is_named_with_those_before_it() -> None:
    with pytest.raises(
        PassError, match=r"pass 'break' after replace-relu: node 'Add_1' \(Add\).*'nowhere', which nothing writes"
    ):
        Manager((ReplaceRelu(), Break())).run(graph_of(TEXT), Context())


def test_a_pass_that_crashes_is_named_and_its_error_kept() -> None:
    with pytest.raises(PassError, match="pass 'crash'") as caught:
        Manager((Crash(),)).run(graph_of(TEXT), Context())
    assert isinstance(caught.value.__cause__, KeyError)


def test_bad_data_is_the_users_fault_not_the_pass() -> None:
    with pytest.raises(DataError, match="no input 'x'"):
        Manager((BadData(),)).run(graph_of(TEXT), Context())


def test_a_pass_at_the_wrong_stage_is_refused() -> None:
    with pytest.raises(OptionError, match="'late' requires stage QUANTIZED, but the graph is at FLOAT"):
        Manager((Late(),)).run(graph_of(TEXT), Context())


def test_verify_accepts_what_is_exact_and_catches_what_is_not() -> None:
    Manager((ReplaceRelu(),), feed=FEED).run(graph_of(TEXT), Context())
    with pytest.raises(PassError, match=r"replace-relu.*calls itself exact, but this output moved by"):
        Manager((ReplaceRelu("Sigmoid"),), feed=FEED).run(graph_of(TEXT), Context())


def test_without_verify_nothing_is_run() -> None:
    graph = graph_of(TEXT)
    Manager((ReplaceRelu("Sigmoid"),)).run(graph, Context())
    assert ops(graph) == ["Sigmoid", "Add"]
