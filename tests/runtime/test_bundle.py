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
    monkeypatch.setattr(features, "present", lambda: TARGETS[name].enabled | {"sse2"})
    assert features.bundled_target() == name
    isa = {"portable": "PORTABLE", "avx2": "AVX2", "avx-vnni": "AVX_VNNI", "avx512-vnni": "AVX512_VNNI"}[name]
    assert max(isa for isa in Isa if isa.supported).name == isa
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
def test_code_is_made_for_a_cpu_that_is_not_there(tmp_path: Path) -> None:
    cpu, path = TARGETS["avx512-vnni"], tmp_path / "avx512-vnni.image"
    variables = {features.NAME_VARIABLE: cpu.name, features.FEATURES_VARIABLE: cpu.features}
    _, error = (
        Machine(tmp_path, HOME=str(tmp_path)).start(MAKE, "--here", str(path), **variables).communicate(timeout=60)
    )
    image = kept(path)
    assert image is not None, error
    assert made_for(image) == MadeFor(code_key(), tuple(sorted(cpu.enabled)))


def test_what_cannot_be_made_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1))
    with pytest.raises(MachineError, match="no machine code was made for avx2"):
        bundle.make(tmp_path / "avx2.image", TARGETS["avx2"])
