"""Which rule lowers which operator; `graph/operators.py` names the rule of each."""

from __future__ import annotations

from qcompiler.graph.operators import OPERATORS
from qcompiler.lowering.engine import Rule
from qcompiler.lowering.rules.elementwise import elementwise_bounds, elementwise_grid, lower_elementwise
from qcompiler.lowering.rules.generated import filled_bounds, lower_filled
from qcompiler.lowering.rules.lrn import lower_lrn, lrn_bounds
from qcompiler.lowering.rules.movers import concat_grid, hull, lower_concat, lower_mover, mover_grid
from qcompiler.lowering.rules.products import layer_bounds, lower_layer_node
from qcompiler.lowering.rules.recurrent import lower_recurrent, recurrent_bounds, recurrent_grid
from qcompiler.lowering.rules.reductions import (
    average_bounds,
    lower_average_pool,
    lower_norm,
    lower_reduction,
    norm_bounds,
    reduction_bounds,
    reduction_grid,
)
from qcompiler.lowering.rules.resize import lower_resize
from qcompiler.lowering.rules.softmax import lower_softmax, softmax_bounds

_ELEMENTWISE = Rule(lower_elementwise, elementwise_bounds, elementwise_grid)

_RULES: dict[str, Rule] = {
    "unary": _ELEMENTWISE,
    "joint": _ELEMENTWISE,
    "layer": Rule(lower_layer_node, layer_bounds),
    "mover": Rule(lower_mover, hull, mover_grid),
    "reduction": Rule(lower_reduction, reduction_bounds, reduction_grid),
    "recurrent": Rule(lower_recurrent, recurrent_bounds, recurrent_grid),
    "concat": Rule(lower_concat, hull, concat_grid),
    "average pool": Rule(lower_average_pool, average_bounds),
    "filled": Rule(lower_filled, filled_bounds),
    "lrn": Rule(lower_lrn, lrn_bounds),
    "resize": Rule(lower_resize, average_bounds, mover_grid),
    "softmax": Rule(lower_softmax, softmax_bounds),
    "norm": Rule(lower_norm, norm_bounds),
}

RULES: dict[str, Rule] = {
    name: _RULES[operator.rule] for name, operator in OPERATORS.items() if operator.rule != "integers"
}
