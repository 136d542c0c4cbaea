"""Grids against their definitions, brute force, and the reference figures of the methods they come from."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import norm

from qcompiler.errors import OptionError
from qcompiler.grids import (
    Grid,
    KMeansGrid,
    PowerGrid,
    SplitGrid,
    byte_parts,
    cluster_centres,
    fit_scale,
    floating,
    fp4_bnb,
    grid_loss,
    grid_named,
    integer_levels,
    minimize,
    nf4,
    post,
    power,
    uniform,
)

FIXED = ("int2", "int3", "int4", "int8", "power3(0.5)", "power4(0.5)", "power4(0.7)", "power8(0.5)", "post3", "post4",
"nf4", "fp4", "fp4_e1m2",
         "fp4_e3m0", "fp4_bnb")  # fmt: skip
FITTED = ("power3", "power4", "split1", "split2", "kmeans2", "kmeans4", "kmeans5")


def draws(name: str, count: int = 200_000) -> np.ndarray:
    """Draws of unit variance."""
    rng = np.random.default_rng(11)
    return rng.standard_normal(count) if name == "gaussian" else rng.laplace(size=count) / np.sqrt(2)


def levels_of(name: str) -> np.ndarray:
    return grid_named(name).fit(np.zeros((1, 1, 1))).levels


# what a grid is

@pytest.mark.parametrize("levels", [
    np.array([-1, 0, 1], np.int32), np.array([0], np.int16), np.array([1, 2], np.int16), np.array([0, 0], np.int16),
    np.array([0, 128], np.int16),
    np.zeros((1, 2), np.int16),
])  # fmt: skip
def test_levels_that_are_no_grid_are_refused(levels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="'odd'"):
        Grid("odd", levels)


@pytest.mark.parametrize("name", FIXED)
def test_nearest_is_what_brute_force_finds(name: str) -> None:
    grid = grid_named(name).fit(np.zeros((1, 1, 1)))
    values = np.concatenate(
        [np.arange(-600, 601) / 4, np.random.default_rng(0).uniform(-140, 140, 500), [-1e30, 1e30, np.inf]]
    )
    found = grid.nearest(values)
    distance = np.abs(np.clip(values, -1e3, 1e3)[:, None] - grid.levels)
    np.testing.assert_array_equal(np.abs(np.clip(values, -1e3, 1e3) - found), distance.min(axis=1))
    ties = (distance == distance.min(axis=1, keepdims=True)).sum(axis=1) > 1
    for value, level in zip(values[ties], found[ties], strict=True):
        both = grid.levels[np.abs(value - grid.levels) == np.abs(value - level)]
        even = both[both % 2 == 0]
        assert level == (even[0] if len(even) == 1 else min(both, key=abs))


@given(hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(-1, 1)), st.integers(1, 127))
@settings(max_examples=100, deadline=None)
def test_rounding_to_integer_levels_is_off_by_half_a_step_at_most(fractions: np.ndarray, largest: int) -> None:
    biggest = np.abs(fractions).max()
    if biggest < 1e-6:
        return
    levels = integer_levels(fractions, largest)
    assert 0 in levels
    assert 1 <= np.abs(levels).max() <= largest
    off = np.abs(levels / np.abs(levels).max() - fractions[:, None] / biggest).min(axis=1)
    assert off.max() <= 1 / (2 * largest) + 1e-8


# the code books

def test_a_power_of_one_is_uniform_and_squares_are_exact() -> None:
    for bits in range(2, 9):
        np.testing.assert_array_equal(power(1.0, bits).levels, uniform(bits).levels)
    assert power(0.5, 4).levels.tolist() == [-49, -36, -25, -16, -9, -4, -1, 0, 1, 4, 9, 16, 25, 36, 49]
    assert power(1 / 3, 3).levels.tolist() == [-27, -8, -1, 0, 1, 8, 27]


@pytest.mark.parametrize("exponent", [0.4, 0.55, 0.8, 1.3])
@pytest.mark.parametrize("bits", [3, 4])
def test_power_levels_are_within_the_proven_bound(exponent: float, bits: int) -> None:
    count = 2 ** (bits - 1) - 1
    exact = (np.arange(count + 1) / count) ** (1 / exponent)
    levels = power(exponent, bits).levels
    assert np.abs(levels[levels >= 0] / 127 - exact).max() <= 1 / 254


def test_the_code_books_are_those_of_their_definitions() -> None:
    quantiles = [norm.ppf(np.linspace(0.9677083, 0.5, 9)[:8]), -norm.ppf(np.linspace(0.9677083, 0.5, 8)[:7]), [0.0]]
    normal = np.sort(np.concatenate(quantiles))
    assert np.abs(nf4().levels / 127 - normal / normal.max()).max() <= 1 / 254 + 1e-6
    assert nf4().levels.tolist() == [-127, -88, -67, -50, -36, -23, -12, 0, 10, 20, 31, 43, 56, 71, 92, 127]
    assert floating(2, 1).levels[7:].tolist() == [0, 1, 2, 3, 4, 6, 8, 12]
    assert floating(3, 0).levels[7:].tolist() == [0, 1, 2, 4, 8, 16, 32, 64]
    np.testing.assert_array_equal(floating(1, 2).levels, uniform(4).levels)
    assert np.abs(fp4_bnb().levels[8:] / 127 - np.array([0.0625, 2, 3, 4, 6, 8, 12]) / 12).max() <= 1 / 254
    assert np.abs(post(4).levels[8:] / 127 - 2.0 ** (-np.arange(7)[::-1] / 2)).max() <= 1 / 254
    assert post(2).levels.tolist() == [-1, 0, 1]


@pytest.mark.parametrize("name", [*FIXED, *FITTED])
def test_named_grids_of_few_levels_keep_pairs_within_what_saturating_kernels_multiply(name: str) -> None:
    weight = draws("laplace", 4096).reshape(1, 8, 512)
    grid = grid_named(name).fit(weight)
    assert grid.largest <= (64 if len(grid.levels) <= 16 else 127)
    assert (
        grid_loss(grid, weight) <= 1.03 * grid_loss(grid_named(name, largest=127).fit(weight), weight)
        or name == "fp4_bnb"
    )


# reference figures

def power_domain(values: np.ndarray, exponent: float, bits: int) -> np.ndarray:
    """The quantizer of the PowerQuant paper: rounded in the power domain, scaled by the largest magnitude."""
    count, largest = 2 ** (bits - 1) - 1, np.abs(values).max()
    codes = np.rint(count * np.sign(values) * (np.abs(values) / largest) ** exponent)
    return largest * np.sign(codes) * (np.abs(codes) / count) ** (1 / exponent)


@pytest.mark.parametrize(("name", "bits", "exponent", "ratio"), [
    ("gaussian", 3, 0.66, 0.63), ("gaussian", 4, 0.62, 0.63), ("gaussian", 6, 0.62, 0.63), ("gaussian", 8, 0.62, 0.63),
    ("laplace", 3, 0.50, 0.51), ("laplace", 4, 0.50, 0.37), ("laplace", 6, 0.48, 0.34), ("laplace", 8, 0.50, 0.34),
    ("gaussian", 2, 1.0, 1.0), ("laplace", 2, 1.0, 1.0),
])  # fmt: skip
def test_the_exponent_search_finds_the_reference_curves(name: str, bits: int, exponent: float, ratio: float) -> None:
    values = draws(name)

    def loss(exponents: np.ndarray) -> np.ndarray:
        return np.array(
            [np.mean((values - power_domain(values, float(a), bits)) ** 2) for a in np.atleast_1d(exponents)]
        )

    best, least = minimize(loss, np.round(np.arange(0.35, 1.01 if bits == 2 else 1.225, 0.05), 2), 8)
    assert float(best[0]) == pytest.approx(exponent, abs=0.07)
    assert float(least[0] / loss(np.ones(1))[0]) == pytest.approx(ratio, abs=0.08)


@pytest.mark.parametrize("name", ["gaussian", "laplace"])
@pytest.mark.parametrize(("bits", "exponent"), [(2, 0.5), (3, 0.5), (3, 0.6), (4, 0.5), (4, 0.62)])
def test_the_nearest_level_beats_rounding_in_the_power_domain(name: str, bits: int, exponent: float) -> None:
    values = draws(name)
    grid = power(exponent, bits)
    scale = np.abs(values).max() / grid.largest
    ours = np.mean((values - scale * grid.nearest(values / scale)) ** 2)
    theirs = np.mean((values - power_domain(values, exponent, bits)) ** 2)
    assert ours <= theirs * 1.005
    assert bits > 2 or ours < theirs / 2


@pytest.mark.parametrize(("name", "error"), [
    ("nf4", 0.00849), ("post4", 0.01126), ("fp4_e2m1", 0.01125), ("int4", 0.01156), ("power4(0.5)", 0.01336),
    ("fp4_bnb", 0.01489),
])  # fmt: skip
def test_errors_of_gaussian_blocks_of_64_under_the_largest_magnitude(name: str, error: float) -> None:
    blocks = draws("gaussian").reshape(-1, 64)
    grid = grid_named(name, largest=127).fit(blocks[None])
    scale = np.abs(blocks).max(axis=1, keepdims=True) / grid.largest
    assert np.mean((blocks - scale * grid.nearest(blocks / scale)) ** 2) == pytest.approx(error, rel=0.02)


@pytest.mark.parametrize(
    ("name", "bits", "error"), [("gaussian", 2, 0.077), ("gaussian", 4, 0.0032), ("laplace", 2, 0.286 / 2)]
)
def test_errors_of_split_grids_under_the_largest_magnitude(name: str, bits: int, error: float) -> None:
    values = draws(name)
    grid = SplitGrid(bits).fit(values.reshape(1, 1, -1))
    scale = np.abs(values).max() / grid.largest
    assert np.mean((values - scale * grid.nearest(values / scale)) ** 2) == pytest.approx(error, rel=0.25)


# searches and fitted grids

def test_the_minima_of_many_functions_are_found_at_once() -> None:
    places = np.array([0.3, 1.0, 1.9])
    best, least = minimize(lambda x: (x - places) ** 2 + places, np.linspace(0, 2, 9), 24)
    np.testing.assert_allclose(best, places, atol=1e-4)
    np.testing.assert_allclose(least, places, atol=1e-6)


@pytest.mark.parametrize("block", [None, 32])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_scale_is_as_good_as_a_fine_scan(block: int | None, weighted: bool) -> None:
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((2, 3, 80))
    metric = np.stack([np.diag(rng.uniform(0, 4, 80)) for _ in range(2)]) if weighted else None
    counts = np.ones((2, 80)) if metric is None else np.einsum("gkk->gk", metric)
    grid = nf4(block)
    scale = fit_scale(grid, weight, metric)
    assert scale.shape == (2, 3, 1 if block is None else 3)
    assert scale.dtype == np.float32
    width = block or 80
    ratios = []
    for group, row, part in np.ndindex(scale.shape):
        values, weighs = weight[group, row, part * width :][:width], counts[group, part * width :][:width]
        losses = [
            np.sum(weighs * (values - s * grid.nearest(values / s)) ** 2)
            for s in (*np.linspace(0.002, 0.05, 2000), scale[group, row, part])
        ]
        ratios.append(losses[-1] / min(losses))
    assert np.mean(ratios) <= 1.1  # few weights make a loss of many minima


@pytest.mark.parametrize("name", ["gaussian", "laplace"])
@pytest.mark.parametrize("bits", [3, 4])
def test_fitted_grids_are_no_worse_than_what_they_choose_from(name: str, bits: int) -> None:
    weight = draws(name, 1 << 15).reshape(1, 32, -1)
    plain = grid_loss(uniform(bits), weight)
    assert grid_loss(PowerGrid(bits).fit(weight), weight) <= plain * 1.001
    assert grid_loss(KMeansGrid(bits).fit(weight), weight) < 0.85 * plain
    if bits == 4:
        assert grid_loss(KMeansGrid(4).fit(weight), weight) < grid_loss(nf4(), weight)


@pytest.mark.parametrize("name", FITTED)
def test_fitting_does_not_depend_on_the_unit_of_the_weight(name: str) -> None:
    weight = draws("laplace", 4096).reshape(1, 8, 512)
    np.testing.assert_array_equal(grid_named(name).fit(weight).levels, grid_named(name).fit(weight * 2.0**-12).levels)


def test_weights_that_do_not_count_do_not_shape_a_grid() -> None:
    rng = np.random.default_rng(5)
    weight = np.concatenate([rng.choice([-3.0, -1.0, 0.0, 1.0], (1, 4, 200)), rng.standard_normal((1, 4, 200))], axis=2)
    metric = np.diag(np.repeat([1.0, 0.0], 200))[None]
    grid = KMeansGrid(2).fit(weight, metric)
    assert grid_loss(grid, weight, metric) < 0.1
    assert grid_loss(KMeansGrid(2).fit(weight), weight) > 100


@pytest.mark.parametrize("name", [*FIXED, *FITTED])
@pytest.mark.parametrize(
    "weight", [np.zeros((1, 2, 8)), np.full((1, 2, 8), 0.25), np.array([[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])]
)
def test_odd_weights_have_a_grid(name: str, weight: np.ndarray) -> None:
    grid = grid_named(name).fit(weight)
    scale = fit_scale(grid, weight)
    assert (scale > 0).all()
    np.testing.assert_allclose(scale * grid.nearest(weight / scale), weight, atol=2e-3)


def test_a_split_grid_holds_three_evenly_spaced_branches() -> None:
    weight = np.concatenate([np.linspace(-9, -6, 50), np.linspace(-1, 2, 90), np.linspace(8, 12, 50)]).reshape(1, 1, -1)
    grid = SplitGrid(2).fit(weight)
    assert (len(grid.levels), grid.bits) == (12, 4)
    np.testing.assert_allclose(
        grid.levels * (12 / grid.largest), [-9, -8, -7, -6, -1, 0, 1, 2, 8, 28 / 3, 32 / 3, 12], atol=12 / 254
    )


# clusters

@given(st.lists(st.integers(-20, 20), min_size=1, max_size=9), st.integers(1, 4), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_clusters_are_the_best_there_are(values: list[int], count: int, seed: int) -> None:
    points = np.sort(np.array(values, float))
    counts = np.random.default_rng(seed).uniform(0.1, 3, len(points))
    centres = cluster_centres(points, count, counts)
    assert (np.diff(centres) > 0).all()

    def cost(cuts: tuple[int, ...]) -> float:
        parts = [slice(a, b) for a, b in zip((0, *cuts), (*cuts, len(points)), strict=True)]
        means = [np.average(points[p], weights=counts[p]) for p in parts]
        return float(sum(np.sum(counts[p] * (points[p] - mean) ** 2) for p, mean in zip(parts, means, strict=True)))

    best = min(
        cost(cuts) for size in range(min(count, len(points))) for cuts in combinations(range(1, len(points)), size)
    )
    found = np.sum(counts * np.abs(points[:, None] - centres).min(axis=1) ** 2)
    assert found == pytest.approx(best, abs=1e-9)


def test_many_values_are_clustered_as_well_as_few() -> None:
    values = draws("gaussian", 50_000)
    found = np.mean(np.abs(values[:, None] - cluster_centres(values, 8)).min(axis=1) ** 2)
    assert found == pytest.approx(0.03454, rel=0.02)  # Lloyd and Max's quantizer of 8 levels


def test_values_that_count_next_to_nothing_do_no_harm() -> None:
    counts = np.array([1e-30, 1.0, 1e-20, 1.0, 1e-30, 0.0])
    np.testing.assert_allclose(cluster_centres(np.array([-5.0, -1, 0, 1, 5, 9]), 2, counts), [-1, 1])
    assert cluster_centres(np.array([3.0, 4.0]), 2, np.zeros(2)).tolist() == [3.0]


# names

@pytest.mark.parametrize(
    "name", ["int1", "int9", "power4(9)", "post8", "nf5", "int4(0.5)", "kmeans", "", "fp4_e4m3", "split7", "power44"]
)
def test_unknown_grids_are_refused(name: str) -> None:
    with pytest.raises(OptionError):
        grid_named(name)


@pytest.mark.parametrize("name", [*FIXED, *FITTED])
def test_names_and_blocks_are_kept(name: str) -> None:
    family = grid_named(name, block=32)
    grid = family.fit(draws("gaussian", 512).reshape(1, 4, 128))
    assert family.block == grid.block == 32
    assert grid.name.startswith("fp4_e2m1" if name == "fp4" else name)


def test_weights_too_small_to_have_a_scale_do_not_disturb_a_code_book() -> None:
    weight = np.random.default_rng(0).normal(size=(1, 60, 8)).astype(np.float32)
    expected = KMeansGrid(2).fit(weight).levels
    weight = np.concatenate([weight, np.full((1, 1, 8), 1e-30, np.float32)], axis=1)
    np.testing.assert_array_equal(KMeansGrid(2).fit(weight).levels, expected)


@pytest.mark.parametrize("name", ["int4/64", "nf4/32", "kmeans4/128", "power3(0.5)/64", "split2/64"])
def test_a_name_may_say_its_block(name: str) -> None:
    kind, _, size = name.partition("/")
    family = grid_named(name)
    assert family.block == int(size)
    assert family.fit(np.random.default_rng(0).standard_normal((1, 4, 256))).block == int(size)
    assert family.name == grid_named(kind).name


@pytest.mark.parametrize("name", ["int4/63", "int4/", "int8/64", "nf4/64/64", "split3/64", "kmeans5/32"])
def test_blocks_of_other_sizes_and_of_many_levels_are_refused(name: str) -> None:
    with pytest.raises(OptionError, match="block"):
        grid_named(name)


def test_byte_parts_are_what_8_bits_hold_and_the_rest() -> None:
    rows = np.random.default_rng(3).standard_normal((6, 1, 50))
    rows[2] = 0.0
    coarse, fine = byte_parts(rows)
    step = np.abs(rows).max(axis=(1, 2), keepdims=True) / 127
    levels = coarse / np.where(step, step, 1.0)
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-9)
    np.testing.assert_allclose(coarse + fine, rows, atol=1e-12)
    assert np.all(np.abs(fine) <= step / 2 + 1e-12)
