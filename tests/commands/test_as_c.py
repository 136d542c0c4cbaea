"""`qcompile … -o model.c`, from a model and from a program: what is written, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner, Result

from qcompiler.cli import application, compile_command
from qcompiler.runtime import Program

MODEL = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x, float[N, T] z) => (float[N, 4] y, float[N, T] v) {\
 a = Exp(x) y = Add(a, x) v = Exp(z) }'


def run(folder: Path, model: str, *arguments: object) -> Result:
    given = [folder / model, *arguments]
    return CliRunner().invoke(application(compile_command), [str(argument) for argument in given])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and the program and the C that it was compiled to."""
    folder = tmp_path_factory.mktemp("compiled")
    onnx.save(onnx.parser.parse_model(MODEL), folder / "model.onnx")
    names = [argument for name in ("net.qprog", "net.c") for argument in ("-o", folder / name)]
    result = run(folder, "model.onnx", "-O", "0", *names, "--c-dim", "N=2", "--c-dim", "T=3")
    assert result.exit_code == 0, result.output
    return folder


def test_a_model_gives_the_file_and_its_header(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "net.c", "net.h", "net.qprog"]
    assert "#define NET_INPUT_1_SHAPE {2, 3}" in (folder / "net.h").read_text()
    assert set(Program.load(folder / "net.qprog").dims) == {"N", "T"}


def test_a_program_gives_the_same_file(folder: Path, tmp_path: Path) -> None:
    result = run(folder, "net.qprog", "-o", tmp_path / "net.c", "--c-dim", "N=2", "--c-dim", "T=3")
    assert result.exit_code == 0, result.output
    for name in ("net.c", "net.h"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_a_size_that_the_program_has_fixed_needs_no_other(folder: Path, tmp_path: Path) -> None:
    result = run(folder, "model.onnx", "-O", "0", "-o", tmp_path / "m.c", "--dim", "N=2", "--c-dim", "T=3")
    assert result.exit_code == 0, result.output
    assert "#define M_INPUT_1_SHAPE {2, 3}" in (tmp_path / "m.h").read_text()


@pytest.mark.parametrize(
    ("model", "arguments", "parts"),
    [
        ("model.onnx", ["m.c"], ["'N', 'T'", "--c-dim N=SIZE --c-dim T=SIZE"]),
        ("model.onnx", ["m.c", "--dim", "N=1..4", "--c-dim", "T=2"], ["'N'", "--c-dim N=SIZE"]),
        ("model.onnx", ["m.c", "--c-dim", "N=1", "--c-dim", "T=2", "--c-dim", "K=2"], ["--c-dim K", "N, T"]),
        ("model.onnx", ["m.c", "--dim", "N=1", "--c-dim", "N=1"], ["--c-dim N", "those are T"]),
        ("model.onnx", ["m.c", "--c-dim", "N=1..4"], ["--c-dim N", "range"]),
        ("model.onnx", ["m.c", "--c-dim", "N"], ["--c-dim N", "NAME=SIZE"]),
        ("model.onnx", ["m.onnx", "--c-dim", "N=1"], ["--c-dim N", "-o model.c"]),
        ("net.qprog", ["m.c", "--c-dim", "N=1"], ["'T'", "--c-dim T=SIZE"]),
        ("net.qprog", ["m.c", "--c-dim", "N=1", "--c-dim", "T=1", "--c-dim", "K=1"], ["unknown dimension 'K'"]),
        ("net.qprog", ["m.onnx"], ["m.onnx", "compiled already"]),
        ("net.qprog", ["m.c", "-O", "3"], ["compiled already", "only -o, --c-dim and --force"]),
        ("nothing.qprog", ["m.c"], ["nothing.qprog"]),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(
    model: str, arguments: list[str], parts: list[str], folder: Path, tmp_path: Path
) -> None:
    result = run(folder, model, "-o", tmp_path / arguments[0], *arguments[1:])
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.strip().splitlines()
    assert all(part in line for part in parts), line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["m.c", "m.h"])
def test_neither_file_is_replaced_without_force(name: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_text("precious")
    arguments = ["-o", tmp_path / "m.c", "--c-dim", "N=1", "--c-dim", "T=1"]
    result = run(folder, "net.qprog", *arguments)
    assert result.exit_code == 2
    assert f"{name}: exists; add --force" in result.stderr
    assert (tmp_path / name).read_text() == "precious"
    assert run(folder, "net.qprog", *arguments, "--force").exit_code == 0
    assert (tmp_path / name).read_text() != "precious"
