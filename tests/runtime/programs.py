"""Small programs that several test files use."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompiler.runtime.program.builder import ProgramBuilder
from qcompiler.runtime.program.expressions import Expression, contiguous
from qcompiler.runtime.program.model import Program

HIDDEN = 24


def two_layers(batch: str | int = "batch", features: int = 40) -> Program:
    """x float [batch, features] -> gemm -> table -> gemm -> y float [batch, 10], and the hidden codes as a plain
    output."""
    rng = np.random.default_rng(0)
    b = ProgramBuilder(source={"model": "two layers"})
    n = b.dim(batch) if isinstance(batch, str) else batch
    x, h, t, y = (
        b.buffer((n, width), np.uint8, name)
        for width, name in ((features, "x_codes"), (HIDDEN, "h"), (HIDDEN, "t"), (10, "y_codes"))
    )
    b.input("x", x, np.float32, (n, features), scale=0.05, zero_point=128)
    for source, target, k, cols, node in ((x, h, features, HIDDEN, "first"), (t, y, HIDDEN, 10, "second")):
        b.emit(
            "gemm",
            node=node,
            x=source,
            w=rng.integers(-127, 128, (k, cols)).astype(np.int8),
            bias=rng.integers(-9999, 9999, cols),
            m=np.full(cols, 1 << 30),
            n=np.full(cols, 42),
            y=target,
            rows=n,
            k=k,
            cols=cols,
            y_zp=100,
        )
        if target is h:
            b.emit("table", node="act", x=h, table=np.arange(256, dtype=np.uint8)[::-1], y=t, count=["mul", n, HIDDEN])
    b.output("y", y, np.float32, (n, 10), scale=0.25, zero_point=100)
    b.output("t", t, np.uint8, (n, HIDDEN))
    return b.program()


def broadcast_strides(shape: Sequence[Expression], result: Sequence[Expression]) -> list[Expression]:
    """Element strides with which a dense array of ``shape`` is read when it is broadcast to the shape ``result``.

    A dimension that is 1 in ``shape`` and not in ``result`` gets stride 0; missing leading dimensions too.
    """
    strides = contiguous(shape)
    lead: list[Expression] = [0] * (len(result) - len(shape))
    return lead + [0 if size == 1 else stride for size, stride in zip(shape, strides, strict=True)]
