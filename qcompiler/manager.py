"""Runs passes over a graph: stage by stage, verified after every one, timed, the culprit named."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import DataError, OptionError, PassError, QCompilerError, VerifyError
from qcompiler.graph import verify
from qcompiler.graph.ir import Feed, Graph, Stage
from qcompiler.graph.runner import Runner
from qcompiler.pass_base import Context, Pass
from qcompiler.records import PassTiming

EXACT_TOLERANCE = 2e-4
"""Largest difference an exact pass may make to an output, relative to that output's largest magnitude (float32
re-association).
"""
SMALLEST_OUTPUT = 1e-3
"""Outputs smaller than this are held to the tolerance of this magnitude: onnxruntime's own Sigmoid is no more exact
than 1e-7.
"""

Outputs = Mapping[str, NDArray[Any]]


@dataclass
class Manager:
    """Runs a sequence of passes.

    Attributes:
        passes: in order.
        feed: with it, every pass that calls itself exact is proven on it against onnxruntime.
        on_pass: called with (pass, graph, changed) after each pass has been verified; for printing and progress.
    """

    passes: Sequence[Pass]
    feed: Feed | None = None
    on_pass: Callable[[Pass, Graph, bool], None] = field(default=lambda _pass, _graph, _changed: None)

    def run(self, graph: Graph, ctx: Context, stage: Stage = Stage.FLOAT) -> Stage:
        """Rewrite ``graph`` in place; returns the stage it has reached.

        Raises:
            OptionError: a pass requires a stage the graph has not reached, or has passed.
            PassError: a pass failed, broke its stage, or was not exact though it says so.
        """
        verify.check(graph, stage)
        known: Outputs | None = None
        done: list[str] = []
        for step in self.passes:
            if step.requires != stage:
                raise OptionError(
                    f"pass '{step.name}' requires stage {step.requires.name}, but the graph is at {stage.name} there; "
                    "change the order of --passes"
                )
            if self.feed is not None and step.exact and known is None:
                known = Runner(graph).run(self.feed)
            changed = self._run_one(step, graph, ctx, done)
            stage = step.ensures
            if changed and not step.exact:
                known = None
            elif changed and known is not None and self.feed is not None:
                known = _prove(step, graph, self.feed, known, done)
            done.append(step.name)
            self.on_pass(step, graph, changed)
        ctx.running = ""
        return stage

    def _run_one(self, step: Pass, graph: Graph, ctx: Context, done: Sequence[str]) -> bool:
        ctx.running = step.name
        start = time.perf_counter()
        try:
            changed = step.run(graph, ctx)
            graph.cleanup(remove_unused_graph_inputs=False).toposort()
            verify.check(graph, step.ensures)
        except (OptionError, DataError):
            raise  # the user's input is at fault, not the pass
        except VerifyError as error:
            raise PassError(step.name, done, error) from error
        except QCompilerError as error:
            raise PassError(step.name, (), error) from error
        except Exception as error:
            raise PassError(step.name, done, error) from error
        ctx.report.timings.append(PassTiming(step.name, time.perf_counter() - start, changed))
        return changed


def _prove(step: Pass, graph: Graph, feed: Feed, before: Outputs, done: Sequence[str]) -> Outputs:
    """Outputs of ``graph``; raises PassError when they differ from ``before``."""
    after = Runner(graph).run(feed)
    for name, reference in before.items():
        if name not in after or after[name].shape != reference.shape:
            raise PassError(
                step.name,
                done,
                VerifyError(step.ensures.name, f"output '{name}'", "an exact pass removed or reshaped it"),
            )
        error, limit = _largest(after[name], reference), EXACT_TOLERANCE * max(_largest(reference), SMALLEST_OUTPUT)
        if not error <= limit:
            rule = f"the pass calls itself exact, but this output moved by {error:.3g} (allowed: {limit:.3g})"
            raise PassError(step.name, done, VerifyError(step.ensures.name, f"output '{name}'", rule))
    return after


def _largest(values: NDArray[Any], reference: NDArray[Any] | float = 0.0) -> float:
    if values.size == 0:
        return 0.0
    return float(np.max(np.abs(np.asarray(values, np.float64) - np.asarray(reference, np.float64))))
