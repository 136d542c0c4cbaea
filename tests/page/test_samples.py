"""How tensors are shown: by their kind, without losing what is seen in them."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.page.png import data_address
from qcompiler.page.samples import LONG, MOST_POINTS, MOST_SIDE, sample

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.zeros((1, 3, 32, 32), np.float32), "image"),
        (np.zeros((2, 32, 40, 1), np.float32), "image"),
        (np.zeros((32, 40, 3), np.uint8), "image"),
        (np.zeros((1, 3, 1, 64), np.float32), "numbers"),
        (np.zeros((1, 4, 32, 32), np.float32), "numbers"),
        (np.zeros((1, 32, 32), np.float32), "numbers"),
        (np.zeros((1, LONG), np.float32), "wave"),
        (np.zeros((1, 1, 4000), np.int16), "wave"),
        (np.zeros((2, LONG), np.float32), "numbers"),
        (np.zeros((1, 500), np.int64), "text"),
        (np.zeros((1, 7), bool), "text"),
        (np.array(5), "text"),
        (np.array([["one", "two"]], object), "text"),
        (np.array([b"one"]), "text"),
        (np.array([{3: 0.5}], object), "text"),
        (np.zeros((0, 3), np.float32), "numbers"),
        (np.zeros((), np.float32), "numbers"),
    ],
)  # fmt: skip
def test_the_kind(array: np.ndarray, kind: str) -> None:
    found = sample("x", [array])
    assert found.kind == kind
    both = sample("x", [array, array])
    assert both.kind == kind
    assert max(len(both.images), len(both.texts), len(both.wave) - 1, *(len(row[1]) for row in both.rows), 0) == 2


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_those_of_the_image(last: bool, channels: int) -> None:
    pixels = RNG.integers(0, 256, (20, 30, channels), dtype=np.uint8)
    array = pixels[None] if last else np.moveaxis(pixels, -1, 0)[None]
    assert sample("x", [array]).images == [data_address(pixels)]
    assert sample("x", [array.astype(np.float32)]).images == [data_address(pixels)]
    assert sample("x", [array / np.float32(255)]).images == [data_address(pixels)]


def test_normalized_images_reach_from_black_to_white_and_both_have_one_scale() -> None:
    one = RNG.normal(size=(1, 1, 16, 16)).astype(np.float32)
    found = sample("x", [one, one + 100])
    low, high = float(one.min()), float(one.max())
    assert found.images[0] == data_address(np.rint((one[0, 0, :, :, None] - low) / (high - low) * 255).astype(np.uint8))
    assert found.images[1] == data_address(np.full((16, 16, 1), 255, np.uint8))
    assert f"black {low:.4g}" in found.note


def test_large_images_become_small_and_of_a_batch_the_first_is_shown() -> None:
    array = np.zeros((5, 1, 4 * MOST_SIDE, 33), np.uint8)
    found = sample("x", [array])
    assert found.images == [data_address(np.zeros((MOST_SIDE, 9, 1), np.uint8))]
    assert found.note == "the first of 5"


def test_no_peak_of_a_long_wave_is_lost() -> None:
    wave = np.zeros(100_000, np.float32)
    wave[12_345], wave[77_777], wave[50_000] = 9.0, -7.0, np.nan
    places, values = sample("x", [wave[None]]).wave
    assert len(places) == len(values) == MOST_POINTS
    assert (max(values), min(values)) == (9.0, -7.0)
    assert abs(places[values.index(9.0)] - 12_345) <= 2 * 100_000 / MOST_POINTS


def test_what_is_not_finite_is_a_gap() -> None:
    wave = np.ones(LONG)
    wave[3] = np.inf
    assert sample("x", [wave]).wave[1][3] is None


def test_few_numbers_are_shown_and_where_the_largest_is() -> None:
    found = sample("x", [np.array([[0.25, 4.0, 1.0]]), np.array([[0.5, 1.0, 4.0]])])
    assert found.rows == [
        ("largest at", ["[0, 1]", "[0, 2]"]),
        ("[0, 0]", ["0.25", "0.5"]),
        ("[0, 1]", ["4", "1"]),
        ("[0, 2]", ["1", "4"]),
    ]


def test_of_many_numbers_statistics_are_shown_and_where_they_differ_most() -> None:
    one = np.zeros((4, 5, 6))
    other = one.copy()
    other[2, 3, 4] = -3.0
    rows = dict(sample("x", [one, other]).rows)
    assert rows["least"] == ["0", "-3"]
    assert rows["farthest apart at [2, 3, 4]"] == ["0", "-3"]


def test_outputs_of_other_shapes_have_their_statistics() -> None:
    rows = dict(sample("x", [np.ones((3, 4)), np.full((7, 4), 2.0)]).rows)
    assert rows["mean"] == ["1", "2"]


def test_long_texts_are_cut() -> None:
    text = sample("ids", [np.arange(600)[None]]).texts[0]
    assert text.startswith("0 1 2 ")
    assert text.endswith(" 511 …")
    assert sample("x", [np.array(["é<b>", "y"], object)]).texts == ["é<b> y"]
    assert sample("x", [np.array([["a b", "c"]])]).texts == ["a b\nc"]
