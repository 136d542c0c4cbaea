"""The same command gives the same file on CPUs of other kinds, and what must differ by CPU can be had from the
report."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from benchmarks.same_bytes import Job, command, compare, digest, dispatched, environment
from qcompiler.api import Options, compile
from qcompiler.errors import OptionError
from qcompiler.passes.weights.allocate_bits import AllocateBits
from qcompiler.records import LayerTime
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

NETWORK = (
    "g (float[N, 3, 12, 12] x) => (float[N, 5] y) {"
    " a = Conv <pads = [1, 1, 1, 1]> (x, w0, b0) b = Relu(a) c = Conv <pads = [1, 1, 1, 1], group = 16> (b, w1, b0) d "
    "= Gelu(c)"
    " e = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (d, w2, b2) f = Relu(e) h = Conv (f, w3, b2) i = Add(f, h)"
    " j = GlobalAveragePool(i) k = Flatten(j) l = Gemm(k, w4, b4) y = Softmax(l) }"
)
SIZES = {
    "w0": (16, 3, 3, 3),
    "b0": (16,),
    "w1": (16, 1, 3, 3),
    "w2": (24, 16, 3, 3),
    "b2": (24,),
    "w3": (24, 24, 1, 1),
    "w4": (24, 5),
    "b4": (5,),
}
DATA = [{"x": random(2, 3, 12, 12, seed=50 + seed)} for seed in range(8)]


def network() -> onnx.ModelProto:
    weights = {name: 0.3 * random(*size, seed=seed) for seed, (name, size) in enumerate(SIZES.items())}
    return gs.export_onnx(graph_of(NETWORK, **weights))


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    onnx.save(network(), folder / "model.onnx")
    np.savez(folder / "feeds.npz", x=np.concatenate([feed["x"] for feed in DATA]))
    return Job("network", folder / "model.onnx", folder / "feeds.npz", {"level": 2, "weights": "int4"})


@pytest.mark.parametrize(("weights", "suffix"), [("int4", ".onnx"), ("int8", ".qprog")])
def test_another_kind_of_cpu_writes_the_same_file(job, weights, suffix):
    these = replace(job, options={"level": 2, "weights": weights}, suffix=suffix)
    assert digest(these, "native") == digest(these, "other")


def test_other_libraries_do_run_as_on_another_cpu():
    """Else the test above compares nothing."""
    variables = environment("other")
    assert environment("native") == {}
    assert variables["NPY_DISABLE_CPU_FEATURES"].split() == dispatched()
    assert variables["OPENBLAS_CORETYPE"] == "Nehalem"


def test_different_files_are_told(job, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.same_bytes.digest", lambda job, how: how)
    assert compare([job], ["native"])
    assert not compare([job], ["native", "other"])
    assert "the files differ" in capsys.readouterr().out


def test_ways_that_there_are_not(monkeypatch):
    with pytest.raises(OptionError, match="must be native, other or qemu:NAME"):
        command("avx512")
    monkeypatch.setattr("shutil.which", lambda _name: None)
    with pytest.raises(OptionError, match="install qemu-user"):
        command("qemu:Haswell")


def test_what_was_measured_can_be_compiled_with_anywhere(tmp_path, monkeypatch):
    """Times of layers differ from run to run; with those of the report the file is the same, whatever this machine
    would have measured.
    """

    def clock(graph, names, feed):
        del graph, feed
        return [
            LayerTime(name, {"2": 4 + len(name), "4": 5 + number, "8": 9 + 3 * number})
            for number, name in enumerate(names)
        ]

    def no_clock(graph, names, feed):
        raise AssertionError("nothing is to be measured")

    options = Options(level=1, weights="auto", latency_budget=0.8, size_budget=0.7)
    monkeypatch.setattr(AllocateBits, "clock", staticmethod(clock))
    first = compile(network(), data=DATA, options=options)
    (tmp_path / "report.json").write_text(json.dumps(first.report.as_dict()))
    monkeypatch.setattr(AllocateBits, "clock", staticmethod(no_clock))
    second = compile(network(), data=DATA, options=replace(options, latency_costs=str(tmp_path / "report.json")))
    for name, compiled in (("first", first), ("second", second)):
        compiled.save(tmp_path / f"{name}.onnx")
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()
