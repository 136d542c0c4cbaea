"""PNG files that another decoder reads."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest

from qcompiler.page.png import data_address

Image = pytest.importorskip("PIL.Image", reason="Pillow, which reads PNG, is not installed")


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 3), (16, 3, 1), (40, 41, 3)])
def test_what_is_read_is_what_was_written(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    kind, _, text = data_address(pixels).partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        np.testing.assert_array_equal(np.asarray(image).reshape(shape), pixels)
