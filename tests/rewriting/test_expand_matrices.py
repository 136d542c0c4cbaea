"""Linear maps as matrix products, and on the machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qcompiler.onnx_io.importer import load_graph
from tests.helpers.expanding import check_on_machine, check_same, model_of, real

array = np.array
F = np.float32
SPECTRA: dict[str, tuple[tuple[int, ...], str, dict[str, Any]]] = {
    "complex": ((2, 10, 3, 2), "y = DFT(x, , a)", {"a": array(1)}),
    "inverse": ((2, 10, 3, 2), "y = DFT <inverse = 1> (x, , a)", {"a": array(1)}),
    "one side of a part": ((2, 3, 10, 1), "y = DFT <onesided = 1> (x, l, a)", {"a": array(2), "l": array(8)}),
    "padded": ((2, 3, 10, 1), "y = DFT(x, l, a)", {"a": array(-2), "l": array(16)}),
    "frames": ((2, 100, 1), "y = STFT(x, s, w, l)", {"s": array(8), "w": np.hanning(32).astype(F), "l": array(32)}),
    "frames without a window": ((2, 100), "y = STFT <onesided = 1> (x, s, , l)", {"s": array(8), "l": array(16)}),
}  # fmt: skip


@pytest.mark.parametrize("case", SPECTRA)
def test_spectra(case: str) -> None:
    shape, body, constants = SPECTRA[case]
    model = model_of(f"float[{', '.join(map(str, shape))}] x", body, **constants)
    check_same(model, {"x": real(0, *shape)})
    if case in ("inverse", "frames"):
        check_on_machine(model, [{"x": real(seed, *shape)} for seed in range(12)], 35)


RESIZES = {
    "cubic": ('mode = "cubic"', (1, 1, 1.5, 0.5)), "cubic, small": ('mode = "cubic"', (1, 1, 0.4, 2)),
    "cubic, corners": ('mode = "cubic", coordinate_transformation_mode = "align_corners"', (1, 1, 1.5, 0.5)),
    "cubic, outside left out": ('mode = "cubic", exclude_outside = 1, cubic_coeff_a = -0.5', (1, 1, 2, 1.3)),
    "cubic, antialiased": ('mode = "cubic", antialias = 1', (1, 1, 0.4, 0.5)),
    "linear, antialiased": ('mode = "linear", antialias = 1', (1, 1, 0.4, 0.5)),
}


@pytest.mark.parametrize("case", RESIZES)
def test_resizing_of_pictures(case: str) -> None:
    attrs, scales = RESIZES[case]
    model = model_of("float[1, 2, 9, 10] x", f"y = Resize <{attrs}> (x, , s)", s=array(scales, F))
    check_same(model, {"x": real(0, 1, 2, 9, 10)})
    if case == "cubic, antialiased":
        check_on_machine(model, [{"x": real(seed, 1, 2, 9, 10)} for seed in range(12)], 35)


def test_resizing_of_sequences_volumes_and_parts() -> None:
    linear = 'y = Resize <mode = "linear"> (x, , s)'
    check_same(model_of("float[1, 2, 9] x", linear, s=array([1, 1, 2.5], F)), {"x": real(0, 1, 2, 9)})
    volume = model_of("float[1, 2, 4, 5, 6] x", linear, s=array([1, 1, 2, 1.5, 0.5], F))
    check_same(volume, {"x": real(0, 1, 2, 4, 5, 6)})
    crop = 'y = Resize <mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize"> (x, r, , s)'
    region = array([0, 0, 0.2, 0.3, 1, 1, 0.9, 0.7], F)
    check_same(model_of("float[1, 2, 9, 10] x", crop, s=array([1, 2, 4, 6]), r=region), {"x": real(0, 1, 2, 9, 10)})


@pytest.mark.parametrize("version", [17, 20])
def test_the_axis_of_a_transform_becomes_an_input(version: int) -> None:
    body = "y = DFT <axis = 1> (x)" if version < 20 else "y = DFT(x, , a)"
    graph = load_graph(model_of("float[2, 10, 1] x", body, opset=version, **({} if version < 20 else {"a": array(1)})))
    assert graph.opset >= 20
