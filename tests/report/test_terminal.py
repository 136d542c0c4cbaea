from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from qcompiler.records import FloatNode, LayerError, Replaced, Report, WidthChoice
from qcompiler.report.measure import SAME_DB
from qcompiler.report.terminal import decibels, rows, show, show_mapping, size


def printed(report: Report, width: int = 100, terminal: bool = False) -> str:
    out = io.StringIO()
    show(report, Console(file=out, width=width, force_terminal=terminal))
    return out.getvalue()


def full_report() -> Report:
    return Report(
        left_float=[FloatNode(f"nms_{i}", "NonMaxSuppression",
        "has no integer form") for i in range(3)] + [FloatNode("if_0", "If", "control flow")],
        widths=[WidthChoice("a", 16, 12.0, True), WidthChoice("b", 16, 12.0, False), WidthChoice("c", 8, 40.0, True)],
        layers=[LayerError(name, "Conv", value) for name, value in (("c", 30.0), ("a", 9.5), ("d", 20.0), ("b", 25.0))],
        output_sqnr_db={"scores": 31.42, "labels": SAME_DB},
        file_bytes={"out.onnx": 2_400_000},
        figures={
            "float_bytes": 18_800_000, "out_bytes": 4_700_000, "integer_mac_share": 0.9996, "arena_bytes": 1_204_224,
            "constants_bytes": 4_800_000,
            "seconds": 12.34, "peak_memory_bytes": 512_000_000, "avoid_saturation_cost_db": 1.25,
            "avoid_saturation_layers": 7,
        },
    )  # fmt: skip


def test_the_table_tells_everything_that_was_measured() -> None:
    assert rows(full_report()) == [
        ("weights", "18.8 MB -> 4.7 MB (25%)"),
        ("file", "out.onnx: 2.4 MB"),
        ("integer", "99.9 % of all multiply-accumulates"),
        ("output", "scores: 31.4 dB against float"),
        ("output", "labels: no difference against float"),
        ("16 bits", "2 tensors, 1 of them into a matrix product or convolution"),
        (
            "saturation",
            ("avoided in 7 layers at a cost of 1.2 dB of weight noise; --no-avoid-saturation: for CPUs that "
            "multiply exactly"),
        ),
        ("", "and, slower, for all with onnxruntime's session option session.x64quantprecision = 1"),
        ("machine", "arena 1.2 MB, constants 4.8 MB"),
        ("worst layers", "9.5 dB  a (Conv)"),
        ("", "20.0 dB  d (Conv)"),
        ("", "25.0 dB  b (Conv)"),
        ("left float", "NonMaxSuppression (3 nodes, nms_0 first): has no integer form"),
        ("", "If (if_0): control flow"),
        ("compiled", "in 12.3 s with at most 512.0 MB of memory"),
    ]


def test_what_was_not_measured_has_no_line() -> None:
    assert rows(Report(figures={"float_bytes": None, "seconds": None})) == []
    assert printed(Report()) == ""


def test_many_reasons_are_cut_and_counted() -> None:
    report = Report(left_float=[FloatNode(f"n{i}", f"Op{i:02}", "unknown domain") for i in range(14)])
    lines = rows(report)
    assert len(lines) == 11
    assert lines[-1] == ("", "and 4 nodes more; --report lists all")


def test_a_pipe_gets_no_control_characters() -> None:
    assert "\x1b" not in printed(full_report())
    assert "\x1b" in printed(full_report(), terminal=True)


def test_names_are_shown_as_they_are() -> None:
    report = Report(output_sqnr_db={"[bold]x[/bold]": 20.0})
    assert "[bold]x[/bold]: 20.0 dB" in printed(report)


def test_a_narrow_terminal_loses_nothing() -> None:
    out = io.StringIO()
    report = Report(left_float=[FloatNode("a" * 60, "If", "control flow")])
    show(report, Console(file=out, width=40, force_terminal=True, color_system=None))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert max(map(len, plain.splitlines())) <= 40
    assert "".join(plain.split()).endswith("a):controlflow")


def test_a_pipe_gets_one_line_for_each_thing() -> None:
    report = Report(left_float=[FloatNode("a" * 60, "If", "control flow")])
    assert printed(report, width=40) == f"left float  If ({'a' * 60}): control flow\n"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (18_800_000, "18.8 MB"), (2_345_000_000, "2.35 GB")],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(("value", "text"), [(-3.24, "-3.2 dB"), (19.96, "20.0 dB"), (SAME_DB, "no difference")])
def test_decibels(value: float, text: str) -> None:
    assert decibels(value) == text


def test_a_mapping_is_shown_with_its_inner_names_untouched() -> None:
    out = io.StringIO()
    show_mapping(
        {"median_ms": 1.5, "arena_bytes": 2048, "outputs": {"my_logits": "float32[1, 10]"}}, Console(file=out, width=80)
    )
    assert [line.split() for line in out.getvalue().splitlines()] == [
        ["median", "ms", "1.5"], ["arena", "bytes", "2.0", "kB"], ["outputs"], ["my_logits", "float32[1,", "10]"],
    ]  # fmt: skip


def test_blocks_that_were_replaced_and_those_that_stay_are_named_with_all_their_figures() -> None:
    done = Replaced(
        "snnk-bundle",
        "up … down",
        "96 neurons by pursuit",
        True,
        "",
        5000,
        2000,
        5600,
        2300,
        0.0123,
        0.015,
        0.001,
        0.0042,
        0.52,
        0.31,
    )
    stays = Replaced("snnk-bundle", "in … out", "8 relu", False, "it errs by 0.4", 5000, 2000, 5600, 2300, 0.4)
    text = (
        "96 neurons by pursuit, 5,000 -> 2,000 MACs, 5.6 kB -> 2.3 kB, 0.52 -> 0.31 ms, errs by 0.012, the outputs by "
        "0.001 -> 0.0042"
    )
    assert rows(Report(replacements=[done, stays])) == [
        ("replaced", "1 of 2 blocks: 3,000 multiply-accumulates a row fewer"),
        ("", f"up … down: {text}"),
        ("", "in … out stays: it errs by 0.4"),
    ]


def test_many_blocks_are_cut_short() -> None:
    stays = [
        Replaced("low-rank", f"layer{index}", "rank 8", False, "it errs by 0.4", 5000, 2000, 5600, 2300, 0.4)
        for index in range(30)
    ]
    lines = rows(Report(replacements=stays))
    assert lines[0] == ("replaced", "0 of 30 blocks")
    assert len(lines) == 14
    assert lines[-1] == ("", "--report lists all")
