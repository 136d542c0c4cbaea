"""The application at the edge, in environments that have the runtime's wheel and what it needs: numpy, and numba if it
brings no machine code.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import qcompiler
from models.small import SMALL_TASKS
from qcompiler.runtime.cpu.features import TARGETS, bundle_file, bundled_target, present
from qcompiler.runtime.run.cache import find
from qcompiler.runtime.run.kept_files import keep, kept
from qcompiler.runtime.run.machine_code import load, places

ROOT = Path(__file__).parents[2]
LINUX = pytest.mark.skipif(
    not (sys.platform.startswith("linux") and platform.machine() == "x86_64"), reason="images are for Linux on x86-64"
)
NEEDED = ("numpy",)
COMPILER = ("numba", "llvmlite")


def environment(folder: Path, source: Path, packages: tuple[str, ...]) -> Path:
    """A folder of packages: the wheel of ``source`` unpacked, others linked."""
    options = ("--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    for name in packages:
        for top in sorted({file.parts[0] for file in importlib.metadata.files(name) or [] if file.parts[0] != ".."}):
            (folder / "site" / top).symlink_to(Path(str(importlib.metadata.distribution(name).locate_file(top))))
    return folder / "site"


def sources(folder: Path) -> Path:
    """A copy of what the wheel is built from, without machine code."""
    litter = shutil.ignore_patterns("__pycache__", "build", "bundles", "*.egg-info")
    return Path(shutil.copytree(ROOT / "runtime", folder / "source", ignore=litter))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pure wheel, which compiles."""
    folder = tmp_path_factory.mktemp("edge")
    return environment(folder, sources(folder), NEEDED + COMPILER)


@pytest.fixture(scope="module")
def site_with_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel with this CPU's machine code in the place of the best target that it can run; there is no compiler."""
    folder = tmp_path_factory.mktemp("device")
    source = sources(folder)
    load()  # the code is in the cache now, unless the checkout has brought it
    image = find(places(), "machine.image") or kept(bundle_file(bundled_target() or ""))
    name = next(name for name, cpu in TARGETS.items() if cpu.enabled <= present())
    assert image is not None
    assert keep(source / "bundles" / f"{name}.image", image)
    return environment(folder, source, NEEDED)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits network, compiled for the machine."""
    path = tmp_path_factory.mktemp("program") / "digits.qprog"
    task = SMALL_TASKS["digits"]()
    qcompiler.compile(task.model, data=task.calibration, for_onnx=False).save(path)
    return path


def run(site: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Python without its own packages (-S), with those of ``site``, far from the checkout."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | {
        "PYTHONPATH": str(site)
    }
    return subprocess.run(
        [sys.executable, "-S", *map(str, arguments)],
        cwd=site,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_environment_has_no_compiler(site: Path) -> None:
    code = (
        "import importlib.util as u; print([n for n in ('onnx', 'onnxruntime', 'onnx_graphsurgeon', 'qcompiler', "
        "'networkx') if u.find_spec(n)])"
    )
    assert run(site, "-c", code).stdout.strip() == "[]"


def test_the_application_reads_digits(site: Path, program: Path) -> None:
    folder = ROOT / "models" / "digits"
    done = run(site, ROOT / "examples/edge/read_digits.py", program, folder / "test.npz", folder / "labels.npy")
    assert done.returncode == 0, done.stderr
    assert "500 images" in done.stdout
    assert float(done.stdout.rpartition("accuracy ")[2]) >= 0.98


@LINUX
def test_with_the_machine_code_in_the_wheel_numpy_is_enough(site_with_code: Path, program: Path) -> None:
    folder = ROOT / "models" / "digits"
    done = run(
        site_with_code, ROOT / "examples/edge/read_digits.py", program, folder / "test.npz", folder / "labels.npy"
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.rpartition("accuracy ")[2]) >= 0.98
    code = "import importlib.util as u; print([n for n in ('numba', 'llvmlite') if u.find_spec(n)])"
    assert run(site_with_code, "-c", code).stdout.strip() == "[]"
    assert "brought by the installation" in run(site_with_code, "-m", "qcompiler_runtime.warm").stdout


@LINUX
def test_machine_code_of_other_sources_is_not_used(site_with_code: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(site_with_code, tmp_path / "site", symlinks=True))
    kernel = changed / "qcompiler_runtime/kernels/wide.py"
    kernel.write_text(kernel.read_text() + "\nADDED = 1\n")
    done = run(changed, "-m", "qcompiler_runtime.warm", "--cache-dir", tmp_path / "cache")
    assert done.returncode == 1
    assert "of other sources" in done.stderr
    assert "pip install 'qcompiler-runtime[jit]'" in done.stderr


def test_a_damaged_program_is_one_clear_line(site: Path, program: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.qprog"
    damaged.write_bytes(program.read_bytes()[:-1000])
    done = run(site, ROOT / "examples/edge/read_digits.py", damaged, ROOT / "models/digits/test.npz")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
