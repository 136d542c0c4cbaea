"""Which rule lowers which operator."""

from __future__ import annotations

from qcompiler.lowering.engine import Rule
from qcompiler.lowering.rules.elementwise import ELEMENTWISE, elementwise_bounds, elementwise_grid, lower_elementwise
from qcompiler.lowering.rules.layers import layer_bounds, lower_layer_node
from qcompiler.lowering.rules.linear import LAYERS
from qcompiler.lowering.rules.lrn import lower_lrn, lrn_bounds
from qcompiler.lowering.rules.movers import MOVERS, concat_grid, hull, lower_concat, lower_mover, mover_grid
from qcompiler.lowering.rules.recurrent import RECURRENT, lower_recurrent, recurrent_bounds, recurrent_grid
from qcompiler.lowering.rules.reductions import (
    REDUCTIONS,
    average_bounds,
    lower_average_pool,
    lower_norm,
    lower_reduction,
    lower_softmax,
    norm_bounds,
    reduction_bounds,
    reduction_grid,
    softmax_bounds,
)
from qcompiler.lowering.rules.resize import lower_resize

_NORM = Rule(lower_norm, norm_bounds)

RULES: dict[str, Rule] = {
    **dict.fromkeys(sorted(ELEMENTWISE), Rule(lower_elementwise, elementwise_bounds, elementwise_grid)),
    **dict.fromkeys(LAYERS, Rule(lower_layer_node, layer_bounds)),
    **dict.fromkeys(MOVERS, Rule(lower_mover, hull, mover_grid)),
    **dict.fromkeys(REDUCTIONS, Rule(lower_reduction, reduction_bounds, reduction_grid)),
    **dict.fromkeys(RECURRENT, Rule(lower_recurrent, recurrent_bounds, recurrent_grid)),
    "Concat": Rule(lower_concat, hull, concat_grid),
    "AveragePool": Rule(lower_average_pool, average_bounds),
    "LRN": Rule(lower_lrn, lrn_bounds),
    "Resize": Rule(lower_resize, average_bounds, mover_grid),
    "Softmax": Rule(lower_softmax, softmax_bounds),
    "LayerNormalization": _NORM,
    "InstanceNormalization": _NORM,
}
