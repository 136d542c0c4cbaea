"""A layer as two smaller ones: best rank-r factors for its inputs (SVD of ``W C^{1/2}``), or tensor-train cores.

    W x  ≈  L (R x)                          L [O, r], R [r, K]
    W x  ≈  Σ_k A[o1, i1, k] B[k, o2, i2] x  (CompactifAI's matrix product operator of two cores)

Both parts are ordinary layers, so that all later passes quantize them. The rank is the smallest whose error on feeds
held out is within the budget; layers are judged one after the other as `snnk-bundle` judges blocks, and the layers
behind are fitted again at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ...calibration.gram import LIMIT_BYTES, LayerInputs, Moments, layer_inputs
from ...calibration.patches import products_of_row
from ...graph.ir import Constant, Graph, copy_of
from ...graph.layers import Layer, find_layers
from ...linear_algebra import matmul
from ...pass_base import Context, Pass
from ...replacement.chains import bias_of, matrix_of
from ...replacement.cost import Cost
from ...replacement.factor import Cores, balanced_divisors, fit_cores, spectrum
from ...replacement.factored import write_cores, write_low_rank
from ...replacement.trial import MOST_TRIALS, Block, Latency, Trials
from ..activations.quantize_activations import QuantizeActivations
from ..weights.quantize_weights import QuantizeWeights

STEP = 8
"""Ranks are multiples of this."""

SHARES = (1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8)
"""Shares of a layer's cost at which cores are fitted."""

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class _Form:
    """One way to write a layer: its factors, its cost and its error on feeds held out."""

    title: str
    factors: tuple[Array, Array] | Cores
    cost: Cost
    held: float

    def write(self, graph: Graph, layer: Layer, mean: Array) -> None:
        """``mean``: of the inputs [K]; the bias takes back what the weights lose of it."""
        weight = self.factors.weight() if isinstance(self.factors, Cores) else matmul(self.factors[0], self.factors[1])
        bias = bias_of(layer) + matmul(matrix_of(layer) - weight, mean)
        if isinstance(self.factors, Cores):
            write_cores(graph, layer, self.factors, bias)
        else:
            write_low_rank(graph, layer, *self.factors, bias)


def _covariance(moments: Moments) -> Array:
    return np.asarray(moments.gram[0] - np.outer(moments.mean[0], moments.mean[0]))


@dataclass(frozen=True)
class LowRank(Pass):
    """Layers become products of two smaller ones.

    Attributes:
        error: budget of a layer's error, and of the outputs', both squared and relative.
        cost: largest share of a layer's multiply-accumulates and bytes that its two parts may take.
        goal: the smallest within the budget, or the most exact one that the cost admits.
        form: svd, or tensor-train (two cores; Gemm and MatMul only).
        layers: names of the layers that may change, separated by commas; empty: all.
        heal: fit the layers behind again.
        latency: off, report, or gate.
    """

    name: ClassVar[str] = "low-rank"
    error: float = 0.02
    cost: float = 0.75
    goal: Literal["size", "error"] = "size"
    form: Literal["svd", "tensor-train"] = "svd"
    layers: str = ""
    heal: bool = True
    latency: Latency = "report"

    def __post_init__(self) -> None:
        if not (self.error > 0 and 0 < self.cost < 1):
            raise ValueError("error must be above 0, cost between 0 and 1")

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Factor what the budgets admit; True when anything was."""
        layers = [layer for layer in find_layers(graph) if self._may_factor(layer, ctx)]
        if not layers:
            return False
        trials = Trials.of(graph, self.error, self.latency, ctx, (QuantizeActivations(), QuantizeWeights()))
        for index, inputs in enumerate(layer_inputs(graph, layers, trials.data, seed=ctx.seed)):
            self._layer(trials, inputs)
            ctx.on_step(index + 1, len(layers))
        return trials.finish(graph, healing=self.heal)

    def _may_factor(self, layer: Layer, ctx: Context) -> bool:
        plain = (
            isinstance(layer.weight, Constant)
            and layer.node.op != "ConvTranspose"
            and layer.node.attrs.get("group", 1) == 1
        )
        chosen = not self.layers or layer.node.name in self.layers.split(",")
        if not (plain and chosen) or (self.form == "tensor-train" and layer.node.op == "Conv"):
            return False
        if self.form == "tensor-train" and any(
            tensor.shape is None for tensor in (layer.node.inputs[0], layer.node.outputs[0])
        ):
            ctx.declined(layer.node, "the rank of what it reads is not known, so that its channels cannot be split")
            return False
        outputs, products = layer.channels, products_of_row(layer)[1]
        if 16 * products**2 > LIMIT_BYTES:
            ctx.declined(layer.node, f"its moments would take more than {LIMIT_BYTES >> 20} MiB")
            return False
        return outputs * products > STEP * (outputs + products)

    def _layer(self, trials: Trials, inputs: LayerInputs) -> None:
        """Try one layer in every size that is promising."""
        layer, weight = inputs.layer, matrix_of(inputs.layer)
        whole = Cost.of([(*weight.shape, layer.bias_node is not None)])
        block, record = Block(layer.node.name, layer, layer, whole, weight.shape[1]), None
        forms = list(self._forms(weight, _covariance(inputs.fit), _covariance(inputs.held), whole))
        if not forms:
            trials.ctx.declined(layer.node, f"no form of it costs at most {self.cost:.0%}")
            return
        for form in self._promising(forms):
            after = copy_of(trials.graph)
            form.write(
                after,
                next(each for each in find_layers(after) if each.node.name == layer.node.name),
                inputs.fit.mean[0],
            )
            record = trials.attempt(
                after.cleanup(remove_unused_graph_inputs=False).toposort(), block, form.title, form.cost
            )
            if record.kept:
                break
        best = min(forms, key=lambda form: form.held)
        trials.report(record or trials.hopeless(block, best.title, best.cost, best.held), block)

    def _promising(self, forms: list[_Form]) -> list[_Form]:
        if self.goal == "error":
            return [min(forms, key=lambda form: form.held)]
        return [form for form in forms if form.held <= self.error][:MOST_TRIALS]

    def _forms(self, weight: Array, fit: Array, held: Array, whole: Cost) -> Iterator[_Form]:
        """The forms within the cost, smallest first."""
        outputs, products = weight.shape
        if self.form == "tensor-train":
            yield from self._cores(weight, fit, held, whole)
            return
        found = spectrum(weight, fit)
        lost = found.lost(held)
        for rank in range(STEP, min(outputs, products) + 1, STEP):
            cost = Cost.of([(rank, products, False), (outputs, rank, True)])
            if cost.within(whole, self.cost):
                yield _Form(f"rank {rank}", found.factors(rank), cost, float(lost[rank]))

    def _cores(self, weight: Array, fit: Array, held: Array, whole: Cost) -> Iterator[_Form]:
        outputs, inputs = (balanced_divisors(size) for size in weight.shape)
        energy = max(float(np.einsum("rk,kl,rl->", weight, held, weight)), 1e-300)
        one, last = fit_cores(weight, fit, outputs, inputs, 1), 0
        for share in (*(share for share in SHARES if share < self.cost), self.cost):
            bond = int(share * min(whole.macs / one.macs, whole.macs / one.parameters))
            if bond <= last:
                continue
            last, cores = bond, fit_cores(weight, fit, outputs, inputs, bond)
            away = weight - cores.weight()
            cost = Cost(cores.macs, cores.parameters + 4 * len(weight))
            yield _Form(
                f"two cores of bond {bond}", cores, cost, float(np.einsum("rk,kl,rl->", away, held, away)) / energy
            )
