"""How closely the machine follows onnxruntime on the same ``out.onnx``, layer by layer, given equal inputs.

    python -m benchmarks.agreement OUT.onnx [--feeds DATA] [--count 4]

The machine runs the file and every code tensor is kept. onnxruntime then computes each quantized tensor from *the
machine's* codes before it, so that no difference is carried from one layer to the next, with its operators as written
(no fusions). With ``--integer`` it also runs the same network as integer arithmetic and counts the output elements that
differ from the machine's: none may.
"""

from __future__ import annotations

import argparse
from collections.abc import Container
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from qcompiler import lowering
from qcompiler.commands.run import feeds_for
from qcompiler.graph.ir import Feed, Graph, Tensor, Variable, producer, unique_name
from qcompiler.graph.runner import Runner
from qcompiler.onnx_io.importer import load_graph
from qcompiler.runtime import Session


def code_tensors(graph: Graph) -> list[Tensor]:
    """Outputs of QuantizeLinear nodes."""
    return [node.outputs[0] for node in graph.nodes if node.op == "QuantizeLinear"]


def forced(graph: Graph, names: Container[str]) -> tuple[Graph, dict[str, str]]:
    """A graph in which every reader of a code tensor of ``names`` reads a new input instead, and the names of those
    inputs by tensor.
    """
    result = graph.copy()
    taken = {tensor.name for tensor in result.tensors().values()}
    inputs: dict[str, str] = {}
    cut = [tensor for tensor in code_tensors(result) if tensor.name in names]
    for tensor in cut:
        stand_in = Variable(unique_name(taken, f"{tensor.name}_given"), tensor.dtype, tensor.shape)
        for reader in list(tensor.outputs):
            reader.inputs = [stand_in if item is tensor else item for item in reader.inputs]
        inputs[tensor.name] = stand_in.name
        result.inputs.append(stand_in)
    result.outputs = cut
    return result.cleanup(remove_unused_graph_inputs=True).toposort(), inputs


class Comparison:
    """Elements, and elements that differ by one step and by more, for each tensor."""

    def __init__(self) -> None:
        self.counts: dict[str, NDArray[np.int64]] = {}

    def add(self, name: str, first: NDArray[Any], second: NDArray[Any]) -> None:
        """Account for one feed."""
        steps = np.abs(first.astype(np.int64) - second.astype(np.int64))
        counts = np.array([steps.size, (steps == 1).sum(), (steps > 1).sum()])
        self.counts[name] = self.counts.get(name, np.zeros(3, np.int64)) + counts


def compare(graph: Graph, feeds: list[Feed]) -> Comparison:
    """Layer-by-layer comparison of the machine and onnxruntime on a quantized graph."""
    session = Session(lowering.to_program(lowering.lower_graph(graph)))
    result = Comparison()
    for feed in feeds:
        # what the machine only views (a Reshape) is not there: onnxruntime moves it as well
        trace = session.trace(dict(feed))
        teacher, inputs = forced(graph, trace)
        given = {inputs[name]: trace[name] for name in inputs}
        for name, codes in Runner(teacher, list(inputs), fusions=False).run(_used(teacher, {**feed, **given})).items():
            result.add(name, codes, trace[name])
    return result


def _used(graph: Graph, feed: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    names = {tensor.name for tensor in graph.inputs}
    return {name: array for name, array in feed.items() if name in names}


def integer_differences(graph: Graph, feeds: list[Feed]) -> int:
    """Output elements in which the integer ONNX form on onnxruntime and the machine differ."""
    integer = lowering.lower_graph(graph)
    session, runner = Session(lowering.to_program(integer)), Runner(lowering.to_integer_onnx(integer))
    different = 0
    for feed in feeds:
        expected, got = runner.run(feed), session.run(dict(feed))
        different += sum(int((expected[name] != got[name]).sum()) for name in expected)
    return different


def main() -> None:
    """Print the worst tensors and the totals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--feeds")
    parser.add_argument("--count", type=int, default=4, help="feeds to run")
    parser.add_argument("--integer", action="store_true", help="also compare with the integer ONNX form")
    options = parser.parse_args()
    graph = load_graph(options.model)
    feeds = list(islice(feeds_for(graph, options.feeds), options.count))
    counts = compare(graph, feeds).counts
    table = Table("tensor", "made by", "off by one", "off by more")
    for name, (size, one, more) in sorted(
        counts.items(), key=lambda item: (-item[1][2] / item[1][0], -item[1][1] / item[1][0])
    )[:12]:
        node = producer(graph.tensors()[name].inputs[0].inputs[0])
        table.add_row(name, node.op if node else "input", f"{one / size:.4%}", f"{more / size:.4%}")
    console = Console()
    console.print(table)
    total = np.sum(list(counts.values()), axis=0)
    worst = max(more / size for size, _, more in counts.values())
    console.print(
        f"{len(counts)} tensors, {total[0]} elements: {total[1] / total[0]:.4%} off by one step, "
        f"{total[2] / total[0]:.4%} by more"
    )
    console.print(f"worst tensor: {worst:.4%} off by more than one step")
    if options.integer:
        console.print(f"integer ONNX form: {integer_differences(graph, feeds)} output elements differ from the machine")


if __name__ == "__main__":
    main()
