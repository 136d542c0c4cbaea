"""The passes of equivalences on random networks: each is made to change whatever it may, and the float function
stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qcompiler.graph.ir import Graph
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context, Pass
from qcompiler.passes.equalize.affine import Affine
from qcompiler.passes.equalize.equalize_channels import EqualizeChannels
from qcompiler.passes.equalize.preshift import Preshift
from qcompiler.passes.equalize.rotate import Rotate
from qcompiler.passes.equalize.rotate_inputs import RotateInputs
from qcompiler.passes.equalize.scale_salient import ScaleSalient
from qcompiler.passes.equalize.shift_channels import ShiftChannels
from qcompiler.passes.equalize.smooth_activations import SmoothActivations
from tests.helpers.equivalence_graphs import convolutional, transformer
from tests.passes.rewriting import tensors_of

Feed = dict[str, NDArray[Any]]
ALWAYS = -1e9
"""A gain that every change has."""

PASSES: tuple[Pass, ...] = (
    EqualizeChannels(), SmoothActivations(gain=ALWAYS), Preshift(gain=ALWAYS), ScaleSalient(gain=ALWAYS),
    ShiftChannels(gain=ALWAYS),
    Rotate(gain=ALWAYS, draws=1), RotateInputs(gain=ALWAYS, draws=1), Affine(gain=ALWAYS, epochs=2, steps=2),
)  # fmt: skip
GRAPHS = 2 * len(PASSES)
"""Random networks of each kind. ``pytest tests/passes/equalize/test_equivalence_passes.py --graphs 1000`` tries 1,000
of each.
"""

ONCE_WRONG = (265, 579)
"""Networks with an output that a region reaches but cannot change."""


@pytest.mark.parametrize("make", [convolutional, transformer])
def test_no_pass_rewrites_a_random_network_falsely(
    make: Callable[[int], tuple[Graph, Feed]], request: pytest.FixtureRequest
) -> None:
    changed = 0
    for seed in (*range(request.config.getoption("--graphs") or GRAPHS), *ONCE_WRONG):
        (graph, feed), step = make(seed), PASSES[seed % len(PASSES)]
        before = Runner(graph, tensors_of(graph), fusions=False).run(feed)
        data = [{"x": np.random.default_rng([seed, number]).permuted(feed["x"], axis=1)} for number in range(2)]
        ctx = Context(data=data)
        Manager([step]).run(graph, ctx)
        changed += bool(ctx.report.regions)
        names = [name for name in tensors_of(graph) if name in before]
        for name, value in Runner(graph, names, fusions=False).run(feed).items():
            limit = 2e-4 * max(float(np.abs(before[name]).max(initial=0.0)), 1e-3)
            np.testing.assert_allclose(
                value, before[name], rtol=0, atol=limit, err_msg=f"{make.__name__}({seed}), {step}: {name}"
            )
    assert changed
