"""The example of a third-party pass: its own tests, and both ways to name it in a pipeline."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "custom_pass"

COMPILE = """
import site, sys
site.addsitedir(sys.argv[1])
import numpy as np, onnx, onnx_graphsurgeon as gs
from qcompiler import Context, Pipeline
from qcompiler.manager import Manager

head = '<ir_version: 10, opset_import: ["" : 21]> g (float[N, 4] x) => (float[N, 4] y) <float a = {0.25}>'
text = head + ' { p = Mul(x, a) y = Max(x, p) }'
graph = gs.import_onnx(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
feed = {"x": np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)}
Manager(Pipeline.parse(sys.argv[2]).passes, feed=feed).run(graph, Context())
print(*(node.op for node in graph.nodes))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example installed, its entry point included."""
    prefix = tmp_path_factory.mktemp("prefix")
    options = ("--no-deps", "--no-build-isolation", "--ignore-installed", "--quiet", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "install", *options, "--prefix", str(prefix), "--editable", str(EXAMPLE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Path(sysconfig.get_path("purelib", vars={"base": str(prefix)}))


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", ["fuse-leaky-relu", "fuse-leaky-relu(max_slope=0.5)", "fuse_leaky_relu:FuseLeakyRelu"])
def test_an_installed_pass_runs_by_its_name_and_by_its_path(installed: Path, name: str) -> None:
    done = run("-c", COMPILE, str(installed), name)
    assert (done.stdout.strip(), done.returncode) == ("LeakyRelu", 0), done.stderr


def test_a_pass_that_is_not_installed_goes_by_its_path(tmp_path: Path) -> None:
    done = run("-c", COMPILE, str(tmp_path), "fuse_leaky_relu:FuseLeakyRelu", PYTHONPATH=str(EXAMPLE))
    assert (done.stdout.strip(), done.returncode) == ("LeakyRelu", 0), done.stderr


def test_the_examples_own_tests() -> None:
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE), PYTHONPATH=str(EXAMPLE))
    assert done.returncode == 0, done.stdout
    assert "10 passed" in done.stdout
