from __future__ import annotations

import io
import xml.etree.ElementTree as ET

import pytest
from rich.console import Console

from qcompiler.records import Allocation, Candidate, LayerBits, Report
from qcompiler.report.pareto import allocation_lines, front_svg, front_table
from qcompiler.report.terminal import rows

NAMESPACE = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def allocation() -> Allocation:
    layers = [LayerBits("a", "int4", 250, 1e-3), LayerBits("b", "int4", 200, 1e-3), LayerBits("c", "int8", 50, 1e-5)]
    candidates = [Candidate("integer program", 500, 0.002, 0.001), Candidate("all int4", 480, 0.004, 0.01)]
    return Allocation(510, 1000, 500, layers, candidates, [(250, 0.1), (500, 0.002), (1000, 1e-6)])


def test_the_lines_say_what_was_chosen(allocation: Allocation) -> None:
    assert list(allocation_lines(allocation)) == [
        "int4 in 2, int8 in 1 layers", "50.0% of the 8-bit weights, 30.0 dB on feeds held out (integer program)",
    ]
    assert rows(Report(allocation=allocation))[0] == ("bits", "int4 in 2, int8 in 1 layers")


def test_the_table_is_ordered_by_size_and_marks_the_choice(allocation: Allocation) -> None:
    text = io.StringIO()
    Console(file=text, width=100).print(front_table(allocation))
    lines = [line for line in text.getvalue().splitlines() if "dB" in line]
    sizes = [
        int(next(word for word in line.split() if word.isdigit() or "," in word).replace(",", "")) for line in lines
    ]
    assert sizes == [250, 480, 500, 500, 1000]
    assert [line for line in lines if ">" in line] == [lines[2]]
    assert "30.0 dB" in lines[2]


def test_the_drawing_has_every_point_inside_its_axes(allocation: Allocation) -> None:
    drawing = ET.fromstring(front_svg(allocation))
    points = [
        tuple(map(float, point.split(","))) for point in drawing.find(f"{NAMESPACE}polyline").get("points").split()
    ]
    circles = [(float(c.get("cx")), float(c.get("cy"))) for c in drawing.findall(f"{NAMESPACE}circle")]
    assert len(points) == 3
    assert len(circles) == 2
    assert all(60 <= x <= 580 and 60 <= y <= 340 for x, y in (*points, *circles))
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)  # more decibels are higher up


def test_a_single_point_can_be_drawn() -> None:
    one = Allocation(
        None, 10, 10, [LayerBits("a", "int8", 10, 0.0)], [Candidate("most accurate", 10, 0.0, 0.0)], [(10, 0.0)]
    )
    assert ET.fromstring(front_svg(one)).tag == f"{NAMESPACE}svg"
