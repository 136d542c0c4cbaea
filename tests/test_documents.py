"""What the documents say must be true: links lead somewhere, the README's first example in Python runs as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

from docs import architecture
from docs.house import ALLOWED
from qcompiler.cli import application, compile_command, qcompile
from qcompiler.feeds.functions import function_named
from qcompiler.options import CompileRequest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith((".", "build", "dist")) for part in path.relative_to(ROOT).parts)
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", document.read_text(encoding="utf8"))
    assert [link for link in links if not link.startswith("https://") and not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_files_that_are_named_exist(document: str) -> None:
    folders = "qcompiler|passes|runtime|tests|models|benchmarks|examples|docs"
    named = re.findall(rf"`((?:{folders})/[\w./-]*)`", (ROOT / document).read_text(encoding="utf8"))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_readmes_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(
        r"```python\n(import numpy.*?)```", (ROOT / "README.md").read_text(encoding="utf8"), re.DOTALL
    )
    exec(example, {})
    assert "'logits'" in capsys.readouterr().out
    onnx.checker.check_model(onnx.load("out.onnx"), full_check=True)


def test_the_readmes_options_exist(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["qcompile", "--help"])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        qcompile()
    offered = capfd.readouterr().out
    text = (ROOT / "README.md").read_text(encoding="utf8")
    used = {
        option for line in re.findall(r"qcompile .*", text) for option in re.findall(r"(?<![\w-])--?[a-z-]+", line)
    } | {"--no-avoid-saturation"}
    assert used >= {"-o", "--calib", "--verify", "--passes"}
    assert [option for option in sorted(used) if option not in offered] == []


def test_the_commands_of_the_tree_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option, rule and grid is one that there is, and every function of feeds or score is in its script."""
    seen: list[CompileRequest] = []
    monkeypatch.setattr("qcompiler.commands.compile.compile_and_write", lambda request, *_: seen.append(request))
    text = (ROOT / "docs" / "when-accuracy-drops.md").read_text(encoding="utf8")
    rows = [f"qcompile m -o out.onnx {options}" for options in re.findall(r"`(--?[a-zA-Z][^`]*)`", text)]
    commands = [*re.findall(r"^ +(qcompile .*)", text, re.MULTILINE), *(row for row in rows if "…" not in row)]
    commands = [command for command in commands if not command.endswith(("--calib", "--accuracy", "--rule"))]
    assert len(commands) > 20
    for command in commands:
        done = CliRunner().invoke(application(compile_command), shlex.split(command)[1:])
        assert done.exit_code == 0, (command, done.output)
    names = set(re.findall(r"examples\.tutorials\.\w+:\w+", text))
    assert len(names) > 4
    assert all(callable(function_named(name, "is called")) for name in names)
    made = {f"build/{name}/model.onnx" for name in ("encoder", "voice", "decoder", "detector")}
    assert {str(request.model) for request in seen} - {"m"} <= made | {"models/digits/model.onnx"}


def test_the_page_of_the_architecture_is_that_of_the_code() -> None:
    assert architecture.PAGE.read_text(encoding="utf8") == architecture.page(), "stale: make docs"
    assert architecture.CONTRIBUTING.read_text(encoding="utf8") == architecture.contributing(), "stale: make docs"
    assert sorted(name for _, names in architecture.FLOORS for name in names) == sorted(ALLOWED)
