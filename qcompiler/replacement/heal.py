"""Healing: layers behind a replacement are refitted to the float model's outputs, in order and closed form.

    W ← W + argmin ‖y - W x̂ - b - D x̂ - e‖² + λ ‖D‖²

x̂ is what reaches a layer now, y what it put out in the float model. Where a layer's output is added to a residual
stream, y is what the stream was behind it, so that the layer also takes back what it can of the stream's error. Each
layer sees those before it as they have become, and is left alone unless its error on rows held out falls; the whole
stays only where the network's outputs gain on feeds held out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.gram import LIMIT_BYTES
from qcompiler.calibration.patches import as_matrix, draw_rows, from_matrix, products_of_row, sample_inputs
from qcompiler.graph.ir import Constant, Feed, Graph, Tensor, constant_of, consumers, copy_of, names_in, unique_name
from qcompiler.graph.layers import Layer, add_to_bias, find_layers, has_bias
from qcompiler.graph.runner import Runner
from qcompiler.losses.network_loss import NetworkLoss
from qcompiler.pass_base import Context
from qcompiler.records import Tuning
from qcompiler.replacement.chains import linear_output, rows_of
from qcompiler.replacement.fit import Fit, NormalEquations, best_ridge
from qcompiler.replacement.observe import held_rows, split_rows

Array = NDArray[Any]

GAIN = 0.05
"""Least relative error reduction for which a refit is kept."""


def heal(graph: Graph, reference: Graph, data: Iterable[Feed], judge: NetworkLoss, ctx: Context) -> Graph:
    """``graph``, or a copy of it whose layers were fitted again and whose outputs are closer to the float model's."""
    healed, names = copy_of(graph), healable(graph, reference)
    fitted = [name for name in names if _fit_again(healed, reference, name, data, ctx.seed)]
    if not fitted:
        return graph
    before, after = judge(graph), judge(healed)
    ctx.report.tunings.append(Tuning("heal", before, after, after < before))
    return healed if after < before else graph


def healable(graph: Graph, reference: Graph) -> list[str]:
    """Names of the layers that are as in the reference but get other inputs, in graph order."""
    known = {layer.node.name: layer for layer in find_layers(reference)}
    changed, found = set[int](), []
    layers = {id(layer.node): layer for layer in find_layers(graph)}
    there = {tensor.name for node in reference.nodes for tensor in node.outputs} | {
        tensor.name for tensor in reference.inputs
    }
    for node in graph.nodes:
        touched = any(
            id(tensor) in changed or (not isinstance(tensor, Constant) and tensor.name not in there)
            for tensor in node.inputs
        )
        layer, twin = layers.get(id(node)), known.get(node.name)
        if touched and layer is not None and twin is not None and _is_same(layer, twin):
            found.append(node.name)
        weight = constant_of(node.inputs[1]) if layer is not None else None
        if touched or (layer is not None and (twin is None or weight is None or weight.shape != twin.values.shape)):
            changed.update(id(tensor) for tensor in node.outputs)
    return found


def _is_same(layer: Layer, twin: Layer) -> bool:
    plain = (
        isinstance(layer.weight, Constant)
        and layer.node.attrs.get("group", 1) == 1
        and layer.node.op != "ConvTranspose"
    )
    return (
        plain
        and has_bias(layer)
        and layer.values.shape == twin.values.shape
        and linear_output(layer).name == linear_output(twin).name
    )


def _fit_again(graph: Graph, reference: Graph, name: str, data: Iterable[Feed], seed: int) -> bool:
    """Change one layer if its error on rows held out falls."""
    layer = next(each for each in find_layers(graph) if each.node.name == name)
    _, products = products_of_row(layer)
    outputs, matrix = layer.channels, as_matrix(layer, np.asarray(layer.values, np.float64))
    if matrix is None or 16 * products * (products + outputs) > LIMIT_BYTES:
        return False
    fit, held = _equations(graph, reference, layer, data, seed)
    everything = np.arange(products)
    change = best_ridge(fit, held, everything)
    none = Fit(everything, np.zeros_like(change.weight), np.zeros(outputs), 0.0)
    if not change.held < (1 - GAIN) * held.error(none):
        return False
    taken = names_in(graph)
    weight = from_matrix(layer, (matrix + change.weight[None]).astype(np.float32))
    layer.node.inputs[1] = Constant(unique_name(taken, f"{layer.weight.name}_healed"), weight)
    add_to_bias(layer, change.bias, taken)
    return True


def _stream(graph: Graph, layer: Layer) -> Tensor:
    """The sum of a layer's output and a residual, or that output where there is none."""
    output = linear_output(layer)
    readers = consumers(output)
    if len(readers) != 1 or readers[0].op != "Add" or any(output is out for out in graph.outputs):
        return output
    result: Tensor = readers[0].outputs[0]
    varies = all(constant_of(tensor) is None for tensor in readers[0].inputs)
    return result if varies and result.shape == output.shape else output


def _equations(
    graph: Graph, reference: Graph, layer: Layer, data: Iterable[Feed], seed: int
) -> tuple[NormalEquations, NormalEquations]:
    """Of what a layer's outputs lack, over its inputs: to fit on and held out."""
    source, target, (_, products) = layer.node.inputs[0].name, _stream(graph, layer).name, products_of_row(layer)
    fit, held = (NormalEquations(products, layer.channels) for _ in range(2))
    apart, count = split_rows(data, products, seed)
    here, there = Runner(graph, [source, target]), Runner(reference, [target])
    for number, feed in enumerate(data):
        values, wanted = here.run(feed, [source, target]), there.run(feed, [target])[target]
        inputs = sample_inputs(layer, values[source], count, np.random.default_rng([seed, number]))[0]
        lacking = rows_of(layer, wanted.astype(np.float64) - values[target])
        lacking = lacking[draw_rows(len(lacking), count, np.random.default_rng([seed, number]))]
        outside = held_rows(apart, number, len(inputs))
        fit.add(inputs[~outside], lacking[~outside])
        held.add(inputs[outside], lacking[outside])
    return fit, held
