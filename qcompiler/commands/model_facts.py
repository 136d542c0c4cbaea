"""What a page says of a model file: what it is, what runs it, what it takes and gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qcompiler.commands.executors import Executor, OnnxExecutor
from qcompiler.commands.program_inspection import inspect_program
from qcompiler.graph.ir import Tensor
from qcompiler.page.comparison_page import ModelFacts
from qcompiler.report.terminal import size

__all__ = ["facts_of", "names_of"]

MOST_OPERATORS = 8
QUANTIZED = ("Quantize", "QLinear", "Integer")
"""Parts of the names of operators that say so of a model."""


def names_of(first: Path, second: Path) -> tuple[str, str]:
    """Names for two files that differ, where their paths do."""
    return (first.name, second.name) if first.name != second.name else (str(first), str(second))


def facts_of(name: str, path: Path, side: Executor) -> ModelFacts:
    """The facts of a file that ``side`` runs."""
    if not isinstance(side, OnnxExecutor):
        program = inspect_program(path)
        facts = {"kind": f"{program.kind} program", "runs on": program.runs_on, "file": size(program.bytes)}
        return ModelFacts(name, {**facts, "inputs": _listed(program.inputs), "outputs": _listed(program.outputs)})
    graph = side.inputs
    counts = Counter(str(node.op) for node in graph.nodes)
    kind = "quantized" if any(word in op for op in counts for word in QUANTIZED) else "float"
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    listed = [f"{op} {number}" for op, number in most[:MOST_OPERATORS]]
    return ModelFacts(
        name,
        {
            "kind": f"{kind} ONNX model",
            "runs on": "onnxruntime",
            "file": size(path.stat().st_size),
            "inputs": _listed(_typed(graph.inputs)),
            "outputs": _listed(_typed(graph.outputs)),
            "nodes": str(len(graph.nodes)),
            "operators": ", ".join([*listed, "…"] if len(most) > MOST_OPERATORS else listed),
        },
    )


def _typed(tensors: Sequence[Tensor]) -> dict[str, str]:
    return {str(tensor.name): f"{_type(tensor.dtype)} {_shape(tensor.shape)}" for tensor in tensors}


def _type(dtype: Any) -> str:
    if dtype is None or isinstance(dtype, int):  # no tensor
        return "sequence or map"
    return "text" if np.dtype(dtype) == np.object_ else str(np.dtype(dtype))


def _shape(shape: Sequence[Any] | None) -> str:
    return "any shape" if shape is None else f"[{', '.join(map(str, shape))}]"


def _listed(ports: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {text}" for name, text in ports.items())
