from __future__ import annotations

import numpy as np

from qcompiler.graph.layers import find_layers
from qcompiler.runtime.cpu.isa import best_isa
from qcompiler.weights.layer_time import LayerShape, kind_of_weight, layer_shape, nanoseconds
from tests.helpers.graphs import graph_of


def product(rows: int, k: int = 512, cols: int = 512, activations: str = "uint8") -> LayerShape:
    return LayerShape("MatMul", (), (rows, k), (k, cols), 1, activations)


def test_many_rows_and_convolutions_take_exactly_the_same_time_with_fewer_values():
    for shape in (
        product(64),
        LayerShape("Conv", (("group", 32), ("pads", (1, 1, 1, 1))), (1, 32, 14, 14), (32, 1, 3, 3), 0, "uint8"),
    ):
        times = nanoseconds(shape)
        assert times["2"] == times["4"] == times["8"] > 0


def test_small_levels_are_measured_where_they_are_multiplied_as_bytes():
    times = nanoseconds(product(48, 256, 64))
    assert (len(set(times.values())) > 1) == best_isa().has_byte_pairs
    depthwise = LayerShape("Conv", (("group", 16), ("pads", (1, 1, 1, 1))), (1, 16, 9, 9), (16, 1, 3, 3), 0, "uint8")
    assert len(set(nanoseconds(depthwise).values())) == 1


def test_a_vector_times_a_matrix_is_measured_with_codes_where_the_cpu_looks_them_up():
    times = nanoseconds(product(1, 4096, 1024))
    assert min(times.values()) > 0
    # otherwise codes are unpacked: one measurement for all
    assert (len(set(times.values())) > 1) == best_isa().has_lookup


def test_a_layer_is_measured_once_in_a_process():
    assert nanoseconds(product(3)) is nanoseconds(product(3))


def test_wide_activations_are_measured_too():
    assert nanoseconds(product(2, 4096, 64, "int16"))["8"] > 0


def test_what_the_machine_does_not_run_takes_no_time():
    assert nanoseconds(product(1, 70_000, 1, "int16")) == {}  # its accumulator may be too small


def test_codes_are_kept_up_to_16_values_and_never_in_blocks():
    found = [kind_of_weight(distinct, 127, None) for distinct in (3, 4, 7, 15, 16, 31, 255)]
    assert found == ["2", "2", "4", "4", "4", "8", "8"]
    assert kind_of_weight(15, 7, 64) == "8"


def test_small_levels_are_kinds_of_their_own():
    sizes = [(3, 1), (4, 2), (7, 3), (15, 7), (16, 8), (31, 15), (25, 20), (63, 31), (65, 32)]
    found = [kind_of_weight(distinct, largest, None) for distinct, largest in sizes]
    assert found == ["int2", "2", "int4", "int4", "4", "int5", "int6", "int6", "8"]


def test_layers_of_the_same_shape_are_the_same():
    graph = graph_of(
        "g (float[2, 8, 5, 5] x) => (float[2, 8, 5, 5] y) { a = Conv <pads = [1, 1, 1, 1]> (x, w)  y = Conv <pads = "
        "[1, 1, 1, 1]> (a, v) }",
        w=np.ones((8, 8, 3, 3), np.float32),
        v=np.zeros((8, 8, 3, 3), np.float32),
    )
    first, second = (layer_shape(layer, (2, 8, 5, 5), "uint8") for layer in find_layers(graph))
    assert first == second
    assert hash(first) == hash(second)
    assert first != layer_shape(next(find_layers(graph)), (2, 8, 5, 5), "int16")
