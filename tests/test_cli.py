from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from typer.testing import CliRunner, Result

from qcompiler.cli import application, compile_command, diff_command, run_command

MODELS = Path(__file__).parent.parent / "models"
MODEL = MODELS / "digits" / "model.onnx"
CALIBRATION = MODELS / "digits" / "calibration.npz"


def call(command: Callable[..., None], *arguments: object) -> Result:
    return CliRunner().invoke(application(command), [str(argument) for argument in arguments])


def refused(result: Result, *parts: str) -> None:
    """Status 2, one line on stderr that holds all parts, no traceback."""
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert all(part in lines[0] for part in parts), lines[0]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    outputs = ["-o", folder / "out.onnx", "-o", folder / "out.qprog", "--report", folder / "report.json"]
    result = call(compile_command, MODEL, *outputs, "--calib", CALIBRATION)
    assert result.exit_code == 0, result.output
    return folder


def test_one_command_gives_model_program_and_report(compiled: Path) -> None:
    onnx.checker.check_model(str(compiled / "out.onnx"), full_check=True)
    report = json.loads((compiled / "report.json").read_text())
    assert report["figures"]["integer_mac_share"] == 1.0
    assert report["output_sqnr_db"]["logits"] > 20
    assert (compiled / "out.onnx").stat().st_size < 0.4 * MODEL.stat().st_size
    assert sorted(path.name for path in compiled.iterdir()) == ["out.onnx", "out.qprog", "report.json"]


def test_two_runs_give_the_same_bytes(compiled: Path, tmp_path: Path) -> None:
    result = call(
        compile_command, MODEL, "-o", tmp_path / "out.onnx", "-o", tmp_path / "out.qprog", "--calib", CALIBRATION
    )
    assert result.exit_code == 0, result.output
    for name in ("out.onnx", "out.qprog"):
        assert (tmp_path / name).read_bytes() == (compiled / name).read_bytes()


def test_without_data_the_warnings_name_the_better_way_and_what_is_known(tmp_path: Path) -> None:
    result = call(compile_command, MODEL, "-o", tmp_path / "out.onnx")
    assert result.exit_code == 0, result.output
    given, known = (line for line in result.stderr.splitlines() if line.startswith("warning: "))
    assert "--calib" in given
    assert "layers have BatchNorm statistics" in known


@pytest.mark.parametrize(("kind", "dtype", "least_db"), [
    ("uint4", np.uint8, 9), ("power4", np.uint8, 9), ("int8", np.int8, 20), ("int16", np.int16, 35),
])  # fmt: skip
def test_activations_of_other_widths_run_on_both_sides(kind: str, dtype: type, least_db: float, tmp_path: Path) -> None:
    result = call(
        compile_command,
        MODEL,
        "-o",
        tmp_path / "out.onnx",
        "--activations",
        kind,
        "--calib",
        CALIBRATION,
        "--report",
        tmp_path / "r.json",
    )
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "r.json").read_text())["output_sqnr_db"]["logits"] > least_db
    written = onnx.load(tmp_path / "out.onnx").graph
    zeros = {node.input[2] for node in written.node if node.op_type == "QuantizeLinear"}
    types = {tensor.data_type for tensor in written.initializer if tensor.name in zeros}
    assert onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)) in types
    for runner in ("machine", "onnxruntime"):
        result = call(
            run_command,
            tmp_path / "out.onnx",
            "--on",
            runner,
            "--feeds",
            CALIBRATION,
            "--save",
            tmp_path / f"{runner}.npz",
        )
        assert result.exit_code == 0, result.output
    machine, ort = (np.load(tmp_path / f"{name}.npz")["logits"] for name in ("machine", "onnxruntime"))
    assert np.square(machine - ort).sum() < 0.003 * np.square(ort).sum()


def test_a_collapse_is_said_aloud(tmp_path: Path) -> None:
    passes = "normalize,tests.helpers.harm:BadGrid,quantize"
    result = call(compile_command, MODEL, "-o", tmp_path / "out.onnx", "--calib", CALIBRATION, "--passes", passes)
    assert result.exit_code == 0, result.output
    assert "output 'logits' is only" in result.stderr


def test_the_machine_and_onnxruntime_agree_on_the_compiled_model(compiled: Path, tmp_path: Path) -> None:
    outputs = []
    for name, on, threads in (("out.onnx", "onnxruntime", 1), ("out.onnx", "machine", 1), ("out.qprog", "machine", 2)):
        target = tmp_path / f"{name}-{on}.npz"
        options = [
            "--on",
            on,
            "--threads",
            threads,
            "--feeds",
            MODELS / "digits" / "test.npz",
            "--save",
            target,
            "--json",
        ]
        result = call(run_command, compiled / name, *options)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["median_ms"] > 0
        outputs.append(np.load(target)["logits"])
    assert np.array_equal(outputs[0].argmax(-1), outputs[1].argmax(-1))
    assert np.abs(outputs[0] - outputs[1]).max() <= 0.05 * np.abs(outputs[0]).max()


def test_blocks_are_bundled_when_asked_for_and_the_report_names_them(tmp_path: Path) -> None:
    model, report = MODELS / "languages" / "model.onnx", tmp_path / "report.json"
    options = [
        "--calib",
        MODELS / "languages" / "calibration.npz",
        "-O",
        0,
        "--report",
        report,
        "--bundle",
        "auto",
        "--bundle-error",
        "0.05",
    ]
    result = call(compile_command, model, "-o", tmp_path / "out.qprog", *options)
    assert result.exit_code == 0, result.output
    assert "multiply-accumulates a row fewer" in result.stdout
    for record in json.loads(report.read_text())["replacements"]:
        assert record["region"] in result.stdout
        assert record["kept"]
        assert 0 < record["bound"] <= 0.05
        assert record["macs_after"] < record["macs_before"]
        assert record["milliseconds_after"] > 0


def test_diff_of_a_model_with_itself_finds_no_difference(compiled: Path) -> None:
    result = call(diff_command, compiled / "out.onnx", compiled / "out.onnx", "--json", "--feeds", CALIBRATION)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert set(found["outputs_sqnr_db"].values()) == {200.0}
    assert set(found["share_of_codes_off_by_more_than_one"].values()) == {0.0}


def test_diff_with_the_float_model_shows_the_worst_layers_first(compiled: Path) -> None:
    result = call(diff_command, MODEL, compiled / "out.onnx", "--json", "--feeds", CALIBRATION)
    layers = list(json.loads(result.stdout)["worst_layers_sqnr_db"].values())
    assert layers == sorted(layers)
    assert 5 < layers[0] < 100


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["missing.onnx"], ["missing.onnx", "no such file"]),
        ([MODEL, "--calib", "missing.npz"], ["missing.npz"]),
        ([MODEL, "--calib", "no_module:feeds"], ["no_module"]),
        ([MODEL, "--passes", "normalize,sparkle"], ["unknown pass 'sparkle'"]),
        ([MODEL, "--passes", "normalize,quantize-activations(observer=magic)"], ["quantize-activations", "observer"]),
        ([MODEL, "--format", "float"], ["--format float", "qdq or integer"]),
        ([MODEL, "--widen", "lots"], ["--widen lots"]),
        ([MODEL, "--weights", "int99"], ["int99", "known"]),
        ([MODEL, "--block", "64"], ["--block 64", "--weights int4"]),
        ([MODEL, "--weights", "nf4", "--block", "48"], ["nf4/48", "32, 64 or 128"]),
        ([MODEL, "--weights", "int6", "--block", "32"], ["int6/32", "at most 4 bits"]),
        ([MODEL, "--weights", "int4", "--block", "32", "--passes", "normalize"], ["--block 32", "reconstruct-layers"]),
        ([MODEL, "--activations", "int5"], ["--activations int5", "uint8, int8, uint4, power4, int16"]),
        ([MODEL, "--activations", "int16", "--widen", "off"], ["--activations int16", "--widen off"]),
        ([MODEL, "--activations", "uint4", "--passes", "normalize,quantize"], ["--activations uint4", "narrow-"]),
        ([MODEL, "--weights", "auto", "--size-budget", "much"], ["--size-budget much", "50%"]),
        ([MODEL, "--bundle", "maybe"], ["--bundle maybe", "auto or off"]),
        ([MODEL, "--bundle-error", "0.1"], ["--bundle-error 0.1", "--bundle auto"]),
        ([MODEL, "--bundle", "auto", "--bundle-error", "0"], ["--bundle-error 0", "above 0"]),
        ([MODEL, "--bundle", "auto", "--passes", "normalize"], ["--bundle auto", "snnk-bundle(error=0.02)"]),
        ([MODEL, "--weights", "int4", "--passes", "normalize"], ["--weights int4", "reconstruct-layers(grid=int4)"]),
        ([MODEL, "--widen", "off", "--passes", "normalize"], ["--widen off", "choose-widths(widen=off)"]),
        ([MODEL, "--max-loss", "0.1", "--passes", "normalize"], ["--max-loss 0.1", "allocate-bits(max_loss=…)"]),
        ([MODEL, "--weights", "int4", "--size-budget", "50%"], ["--weights int4", "--weights auto"]),
        ([MODEL, "--weights", "int4", "--latency-budget", "80%"], ["--weights int4", "--weights auto"]),
        ([MODEL, "--weights", "auto", "--latency-budget", "fast"], ["--latency-budget fast", "8-bit time", "50%"]),
        ([MODEL, "--weights", "auto", "--latency-costs", "no.json"], ["--latency-costs no.json", "--latency-budget"]),
        ([MODEL, "--weights", "auto", "--size-budget", "50%", "--max-loss", "0.1"], ["--max-loss", "--size-budget"]),
        ([MODEL, "--weights", "auto", "-O", "0"], ["--weights auto", "-O1"]),
        ([MODEL, "--print-after", "nothing"], ["--print-after nothing", "quantize-weights"]),
        ([MODEL, "--passes", "store-codes,normalize"], ["requires stage FLOAT, but the graph is at QUANTIZED"]),
    ],
)
def test_bad_options_are_one_line_and_write_nothing(arguments: list[object], parts: list[str], tmp_path: Path) -> None:
    refused(call(compile_command, *arguments, "-o", tmp_path / "out.onnx"), *parts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "part"),
    [("out.txt", "must end in .onnx"), ("folder", "is a folder"), ("no/such/out.onnx", "does not exist")],
)
def test_bad_output_paths(name: str, part: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    refused(call(compile_command, MODEL, "-o", tmp_path / name), part)


def test_an_existing_output_needs_force_and_survives_a_failure(tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    target.write_bytes(b"precious")
    refused(call(compile_command, MODEL, "-o", target, "--calib", CALIBRATION), "exists; add --force")
    refused(call(compile_command, MODEL, "-o", target, "--calib", "missing.npz", "--force"), "missing.npz")
    assert target.read_bytes() == b"precious"
    assert call(compile_command, MODEL, "-o", target, "--calib", CALIBRATION, "--force").exit_code == 0
    assert target.read_bytes() != b"precious"


def test_the_model_itself_is_never_overwritten(tmp_path: Path) -> None:
    copy = tmp_path / "model.onnx"
    copy.write_bytes(MODEL.read_bytes())
    refused(call(compile_command, copy, "-o", copy, "--force"), "is the model itself")
    assert copy.read_bytes() == MODEL.read_bytes()


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a\x12\x04abcd"])
def test_files_that_are_no_model(content: bytes, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(content)
    refused(call(compile_command, model, "-o", tmp_path / "out.onnx"), "model.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_a_truncated_model(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(MODEL.read_bytes()[:-5000])
    refused(call(compile_command, model, "-o", tmp_path / "out.onnx"), "model.onnx")


@pytest.mark.parametrize(
    ("feed", "part"),
    [
        ({"picture": np.zeros((4, 1, 28, 28), np.float32)}, "picture"),
        ({"image": np.zeros((4, 1, 28, 28), np.complex64)}, "image"),
        ({"image": np.zeros((28, 28), np.float32)}, "image"),
        ({"image": np.full((4, 1, 28, 28), np.nan, np.float32)}, "NaN"),
        ({"image": np.zeros((0, 1, 28, 28), np.float32)}, "image"),
        ({}, ""),
    ],
)
def test_bad_calibration_feeds(feed: dict[str, np.ndarray], part: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "feeds.npz", **feed)
    refused(call(compile_command, MODEL, "-o", tmp_path / "out.onnx", "--calib", tmp_path / "feeds.npz"), part)
    assert not (tmp_path / "out.onnx").exists()


def test_an_empty_calibration_folder(tmp_path: Path) -> None:
    (tmp_path / "feeds").mkdir()
    refused(call(compile_command, MODEL, "-o", tmp_path / "out.onnx", "--calib", tmp_path / "feeds"), "feeds")


def test_damaged_programs(compiled: Path, tmp_path: Path) -> None:
    whole = (compiled / "out.qprog").read_bytes()
    program = tmp_path / "bad.qprog"
    for content in (b"", whole[:100], whole[:-1000], whole.replace(b"qprog", b"qprig", 1)):
        program.write_bytes(content)
        refused(call(run_command, program), "bad.qprog")


def test_a_float_model_does_not_run_on_the_machine() -> None:
    refused(call(run_command, MODEL), "a float model", "qcompile", "--on onnxruntime")
    refused(call(run_command, MODEL, "--on", "moon"), "--on moon")


def test_an_output_that_was_lost_is_told(tmp_path: Path) -> None:
    text = "<ir_version: 8, opset_import: ['' : 17]> g (float[N, 4] x) => (float[N, 4] y) { y = MatMul(x, w) }".replace(
        "'", '"'
    )
    model = onnx.parser.parse_model(text)
    # whose smaller elements are nothing beside the largest one on 2 bits
    weight = np.diag([1, 0.1, 0.1, 0.1]).astype(np.float32) + 0.1
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight[[1, 2, 3, 0]].T.copy(), "w"))
    onnx.save(model, tmp_path / "coarse.onnx")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32))
    options = ("--calib", tmp_path / "x.npy", "--weights", "int2", "-O", "0")
    result = call(compile_command, tmp_path / "coarse.onnx", "-o", tmp_path / "out.onnx", *options)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("output 'y' is only") == 1


def test_ranges_do_not_depend_on_the_order_of_feeds(tmp_path: Path) -> None:
    images = np.load(CALIBRATION)["image"].reshape(-1, 1, 28, 28)[:8, None]
    found = []
    for name, feeds in (("as they come", images), ("reversed", images[::-1])):
        np.savez(tmp_path / "feeds.npz", image=feeds)
        target = tmp_path / f"{name}.onnx"
        result = call(
            compile_command, MODEL, "-o", target, "--calib", tmp_path / "feeds.npz", "-O", "0", "--widen", "off"
        )
        assert result.exit_code == 0, result.output
        graph = onnx.load(target).graph
        values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        found.append([float(values[node.input[1]]) for node in graph.node if node.op_type == "QuantizeLinear"])
    assert len(found[0]) > 5
    assert found[0] == found[1]


def test_a_page_for_a_model_whose_onnx_graph_has_no_program_of_its_own(tmp_path: Path) -> None:
    """What reads a logarithm stays float in .onnx; the program is another graph, and the page is of the first file."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (float[n, 16] x) => (float[n, 8] y) <
        float small = {1e-5}> { a = MatMul(x, w)  b = Mul(a, a)  c = Add(b, small)  d = Log(c)  y = MatMul(d, v) }""")
    rng = np.random.default_rng(0)
    for name, shape in (("w", (16, 12)), ("v", (12, 8))):
        weight = rng.standard_normal(shape).astype(np.float32) / 4
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    path, page = tmp_path / "model.onnx", tmp_path / "page.html"
    onnx.save(model, path)
    for place in range(12):
        feed = rng.standard_normal((8, 16)) * 10 ** rng.uniform(-2, 0, (8, 1))
        np.savez(tmp_path / f"{place}.npz", x=feed.astype(np.float32))
    outputs = ["-o", tmp_path / "out.onnx", "-o", tmp_path / "out.qprog", "--report", page]
    result = call(compile_command, path, *outputs, "--calib", tmp_path)
    assert result.exit_code == 0, result.output
    assert "<html" in page.read_text(encoding="utf8")
