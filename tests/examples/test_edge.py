"""The application at the edge, in an environment that has the runtime's wheel, its three dependencies, and nothing else."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import qcompiler
from models.small import SMALL_TASKS

ROOT = Path(__file__).parents[2]
NEEDED = ("numpy", "numba", "llvmlite", "safetensors")  # llvmlite is a part of numba


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages: the wheel unpacked, the dependencies linked."""
    folder = tmp_path_factory.mktemp("edge")
    shutil.copytree(ROOT / "runtime", folder / "source", ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    options = ("--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(folder), str(folder / "source")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    for name in NEEDED:
        for top in sorted({file.parts[0] for file in importlib.metadata.files(name) or [] if file.parts[0] != ".."}):
            (folder / "site" / top).symlink_to(Path(str(importlib.metadata.distribution(name).locate_file(top))))
    return folder / "site"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits network, compiled for the machine."""
    path = tmp_path_factory.mktemp("program") / "digits.qprog"
    task = SMALL_TASKS["digits"]()
    qcompiler.compile(task.model, data=task.calibration, for_onnx=False).save(path)
    return path


def run(site: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Python without its own packages (-S), with those of ``site``, far from the checkout."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | {"PYTHONPATH": str(site)}
    return subprocess.run([sys.executable, "-S", *map(str, arguments)], cwd=site, env=environment, capture_output=True, text=True, check=False)


def test_the_environment_has_no_compiler(site: Path) -> None:
    code = "import importlib.util as u; print([n for n in ('onnx', 'onnxruntime', 'onnx_graphsurgeon', 'qcompiler', 'networkx') if u.find_spec(n)])"
    assert run(site, "-c", code).stdout.strip() == "[]"


def test_the_application_reads_digits(site: Path, program: Path) -> None:
    folder = ROOT / "models" / "digits"
    done = run(site, ROOT / "examples/edge/read_digits.py", program, folder / "test.npz", folder / "labels.npy")
    assert done.returncode == 0, done.stderr
    assert "500 images" in done.stdout
    assert float(done.stdout.rpartition("accuracy ")[2]) >= 0.98


def test_a_damaged_program_is_one_clear_line(site: Path, program: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.qprog"
    damaged.write_bytes(program.read_bytes()[:-1000])
    done = run(site, ROOT / "examples/edge/read_digits.py", damaged, ROOT / "models/digits/test.npz")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
