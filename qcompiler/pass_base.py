"""The contract of a pass. Read this file, then write one.

A pass is a frozen dataclass. Its fields are its options, its ``name`` is what a pipeline text calls it::

    @dataclass(frozen=True)
    class NegateTwice(Pass):
        '''Removes Neg(Neg(x)). Exact.'''
        name: ClassVar[str] = "negate-twice"
        exact: ClassVar[bool] = True
        limit: int = 100

        def run(self, graph: Graph, ctx: Context) -> bool: ...

``run`` changes ``graph`` in place and says whether it did. Where it sees a place that it could have changed but must
not, it calls ``ctx.declined(node, "why")``. It need not clean up: the manager removes dead nodes, sorts, and checks the
graph against the stage the pass promises, after every pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Feed, Graph, Node, QuantSpec, Stage
from qcompiler.grids import GridFamily
from qcompiler.records import Declined, FloatNode, Report


@dataclass(frozen=True)
class BatchNormStatistics:
    """What a folded BatchNormalization knew of its input, per channel [C], float64.

    ``mean`` and ``variance`` are those of the float output *behind* the folded layer: beta and gamma squared.
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]


@dataclass
class Context:
    """What a pass may use besides the graph.

    Attributes:
        seed: source of every random choice.
        data: calibration feeds that everything is fitted to; may be iterated many times, never holds more than one feed
            in memory. None: none given.
        report: what happened, for people.
        batchnorm: statistics of folded BatchNorm, by the name of the tensor they describe.
        dims: sizes of symbolic dimensions to use where feeds are made up.
        reference: the float graph as the last exact pass left it; a rewritten one is compared with it. None: not known
            (a pass run by itself).
        on_step: called with (done, total) by passes that take long.
        grids: grid of a layer's weights by the name of its node, where a pass has chosen one.
        held: feeds that nothing is fitted to before the result has been measured on them; then ranges take them in.
        final_grids: by the name of a tensor in front of a Q/DQ pair, its grid from the fitted feeds and the one from
            all feeds.
        folds: parts of ``data`` that are left out of the ranges in turn, so that each can be judged on, too.
        fold_grids: as `final_grids`, for each fold the grid from all feeds but its own.
        matched: gain and shift [C] of layers that have, for now, the statistics of training on made-up feeds, by name
            of their node (`match-batchnorm`).
        unmatched: the reference without these.
        matched_pair: the reference and the quantized graph with these, on which made-up feeds are most like real ones.
        wide: names of tensors of which small values matter: they get 16 bits where their readers can take them.
        inner: names of tensors within a function of one element, which is a table as a whole: they get no grid.
        steps: by name of a tensor, the step of its 16-bit grid where that is known before data are seen.
    """

    seed: int = 0
    data: Iterable[Feed] | None = None
    report: Report = field(default_factory=Report)
    batchnorm: dict[str, BatchNormStatistics] = field(default_factory=dict)
    dims: dict[str, int] = field(default_factory=dict)
    reference: Graph | None = None
    on_step: Callable[[int, int], None] = field(default=lambda _done, _total: None, repr=False)
    grids: dict[str, GridFamily] = field(default_factory=dict)
    held: Sequence[Feed] = ()
    final_grids: dict[str, tuple[QuantSpec, QuantSpec]] = field(default_factory=dict, repr=False)
    folds: int = 0
    fold_grids: dict[str, list[QuantSpec]] = field(default_factory=dict, repr=False)
    matched: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=dict, repr=False)
    unmatched: Graph | None = field(default=None, repr=False)
    matched_pair: tuple[Graph, Graph] | None = field(default=None, repr=False)
    wide: set[str] = field(default_factory=set)
    inner: set[str] = field(default_factory=set)
    steps: dict[str, float] = field(default_factory=dict)
    running: str = ""

    @property
    def made_up(self) -> bool:
        """True where no calibration feeds were given."""
        return self.data is None or bool(getattr(self.data, "made_up", False))

    def declined(self, node: Node, reason: str) -> None:
        """Record that the running pass left ``node`` alone, and why; once, however often the pass runs."""
        record = Declined(self.running, node.name, node.op, reason)
        if record not in self.report.declined:
            self.report.declined.append(record)

    def left_float(self, node: Node, reason: str) -> None:
        """Record that ``node`` stays float in the result, and why."""
        self.report.left_float.append(FloatNode(node.name, node.op, reason))

    def warn(self, message: str) -> None:
        """Tell the user, once."""
        if message not in self.report.warnings:
            self.report.warnings.append(message)


@dataclass(frozen=True)
class Pass(ABC):
    """One rewrite of a graph.

    Class attributes:
        name: kebab-case name for pipeline texts; unique.
        requires, ensures: stage of the graph before and after.
        exact: the float function is unchanged; ``--verify`` proves it against onnxruntime.
    """

    name: ClassVar[str]
    requires: ClassVar[Stage] = Stage.FLOAT
    ensures: ClassVar[Stage] = Stage.FLOAT
    exact: ClassVar[bool] = False

    @abstractmethod
    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when anything changed."""
