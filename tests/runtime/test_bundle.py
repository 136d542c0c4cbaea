"""Machine code that an installation brings along: which target is chosen, and that files are made and judged by their
sources.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qcompiler.runtime import bundle
from qcompiler.runtime.cpu import features
from qcompiler.runtime.cpu.features import KNOWN, TARGETS
from qcompiler.runtime.cpu.isa import Isa
from qcompiler.runtime.errors import MachineError
from qcompiler.runtime.run.image import MadeFor, made_for
from qcompiler.runtime.run.kept_files import keep, kept
from qcompiler.runtime.run.machine_code import code_key
from tests.runtime.run.test_cache import Machine

LINUX = pytest.mark.skipif(
    not (sys.platform.startswith("linux") and platform.machine() == "x86_64"), reason="images are for Linux on x86-64"
)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an installation that has something for every target."""
    monkeypatch.setattr(features, "BUNDLES", tmp_path)
    for variable in (features.NAME_VARIABLE, features.FEATURES_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    for name in TARGETS:
        (tmp_path / f"{name}.image").write_bytes(b"")
    functions = (features.bundled_target, features.target, features.cpu_features)
    for function in functions:
        function.cache_clear()
    yield tmp_path
    for function in functions:
        function.cache_clear()


@LINUX
@pytest.mark.parametrize("name", TARGETS)
def test_the_best_target_is_chosen_that_the_cpu_has_and_the_installation_brings(
    name: str, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "MACHINE", TARGETS[name].machine)
    monkeypatch.setattr(features, "present", lambda: TARGETS[name].enabled | {"sse2"})
    assert features.bundled_target() == name
    isas = {"avx2": "AVX2", "avx-vnni": "AVX_VNNI", "avx512-vnni": "AVX512_VNNI"}
    assert max(isa for isa in Isa if isa.supported).name == isas.get(name, "PORTABLE")
    (installed / f"{name}.image").unlink()
    features.bundled_target.cache_clear()
    assert features.bundled_target() != name


@LINUX
def test_an_instruction_set_that_the_chosen_code_lacks_is_not_offered(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some CPUs have both kinds of dot products; the code of one target has the tiles of one."""
    monkeypatch.setattr(features, "present", lambda: KNOWN)
    assert features.bundled_target() == "avx512-vnni"
    assert Isa.AVX512_VNNI.supported
    assert not Isa.AVX_VNNI.supported


@LINUX
def test_an_old_cpu_gets_none(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "present", lambda: frozenset({"sse2"}))
    assert features.bundled_target() is None


def test_a_file_is_current_if_it_was_made_of_these_sources(tmp_path: Path) -> None:
    path = tmp_path / "avx2.image"
    assert not bundle.is_current(path)
    for sources, current in ((code_key(), True), ("others", False)):
        head = f'{{"entries": {{}}, "slots": {{}}, "absolute": [], "sources": "{sources}", "needs": []}}'.encode()
        assert keep(path, len(head).to_bytes(4, "little") + head)
        assert bundle.is_current(path) is current


def test_an_installation_gets_the_code_of_its_architecture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, copied = tmp_path / "made", tmp_path / "copied"
    monkeypatch.setattr(features, "BUNDLES", str(made))
    head = f'{{"sources": "{code_key()}", "needs": []}}'.encode()
    for name in ("portable", "neon"):
        assert keep(made / f"{name}.image", len(head).to_bytes(4, "little") + head)
    bundle.copy_for("aarch64", copied)
    assert sorted(path.name for path in copied.iterdir()) == ["neon.image", "sealed"]
    with pytest.raises(MachineError, match="no machine code of these sources for avx512-vnni; make bundles makes it"):
        bundle.copy_for("x86_64", tmp_path / "other")


MAKE = """
import sys
from qcompiler.runtime import bundle
def compiled():
    from llvmlite import binding
    from qcompiler.runtime.cpu.features import target_machine
    functions = [("run", 1), ("attend", 3), ("execute", 4), ("convert", 2)]
    text = "".join(f"define i64 @{name}({', '.join(['i64'] * count)}) {{ ret i64 7 }}\\n" for name, count in functions)
    return bytes(target_machine().emit_object(binding.parse_assembly(text)))
bundle.compiled = compiled
sys.exit(bundle.main())
"""


@LINUX
@pytest.mark.parametrize("name", ["avx512-vnni", "neon"])
def test_code_is_made_for_a_cpu_that_is_not_there(name: str, tmp_path: Path) -> None:
    cpu, path = TARGETS[name], tmp_path / f"{name}.image"
    variables = {features.TARGET_VARIABLE: name}
    _, error = (
        Machine(tmp_path, HOME=str(tmp_path)).start(MAKE, "--here", str(path), **variables).communicate(timeout=60)
    )
    image = kept(path)
    assert image is not None, error
    assert made_for(image) == MadeFor(code_key(), tuple(sorted(cpu.enabled)))


def test_what_cannot_be_made_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1))
    with pytest.raises(MachineError, match="no machine code was made for avx2"):
        bundle.make(tmp_path / "avx2.image", "avx2")
