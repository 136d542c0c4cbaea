"""The two distributions: what is in them, and that every way to install them works. Built offline from copies of the
sources.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LITTER = shutil.ignore_patterns("__pycache__", "build", "bundles", "*.egg-info")

IMPORT_ALL = """
import qcompiler.passes, qcompiler.runtime, qcompiler.errors
from pathlib import Path
home = Path({home!r}).resolve()
for module in (qcompiler, qcompiler.passes, qcompiler.runtime):
    assert Path(module.__file__).resolve().is_relative_to(home), module.__file__
"""
NO_TOP_LEVEL_NAMES = """
import importlib.util
assert importlib.util.find_spec("passes") is None and importlib.util.find_spec("runtime") is None
"""


def python(code: str, folder: Path, *search: Path) -> None:
    """Run ``code`` in ``folder``, with the packages of ``search`` and, of this environment's, those that are not
    editable (-S).
    """
    prelude = "import site, sys\n" + "".join(f"site.addsitedir({str(path)!r})\n" for path in search)
    prelude += f"sys.path += {[sysconfig.get_path('purelib'), sysconfig.get_path('platlib')]!r}\n"
    done = subprocess.run(
        [sys.executable, "-S", "-c", prelude + code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the distributions are built from: building writes next to the sources."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("qcompiler", "passes", "runtime"):
        shutil.copytree(ROOT / name, folder / name, ignore=LITTER)
    return folder


@pytest.fixture(scope="module")
def wheels(checkout: Path) -> dict[str, Path]:
    """Both distributions as wheels, by their name."""
    out = checkout / "dist"
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, checkout, checkout / "runtime")
    return {path.name.split("-")[0]: path for path in out.glob("*.whl")}


def modules(wheel: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def expected(folder: str, package: str) -> set[str]:
    base = ROOT / folder
    return {
        f"{package}/{path.relative_to(base).as_posix()}"
        for path in base.rglob("*.py")
        if "build" not in path.relative_to(base).parts
    }


def test_the_compilers_wheel_holds_every_module_and_only_the_package(wheels: dict[str, Path]) -> None:
    wanted = (
        expected("qcompiler", "qcompiler")
        | expected("passes", "qcompiler/passes")
        | expected("runtime", "qcompiler/runtime")
    )
    assets = {
        f"qcompiler/page/{path.relative_to(ROOT / 'qcompiler/page').as_posix()}"
        for path in (ROOT / "qcompiler/page/assets").rglob("*")
        if path.is_file()
    }
    typed = {"qcompiler/py.typed", "qcompiler/runtime/py.typed"}
    kernels = {f"qcompiler/c_output/kernels/{path.name}" for path in (ROOT / "qcompiler/c_output/kernels").iterdir()}
    assert assets
    assert modules(wheels["onnx_qcompiler"]) == wanted | assets | kernels | typed


def test_the_runtimes_wheel_holds_every_module_of_the_machine_and_nothing_else(wheels: dict[str, Path]) -> None:
    assert modules(wheels["qcompiler_runtime"]) == expected("runtime", "qcompiler_runtime") | {
        "qcompiler_runtime/py.typed"
    }


def test_the_wheels_carry_the_licence(wheels: dict[str, Path]) -> None:
    for wheel in wheels.values():
        metadata = next(name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/METADATA"))
        assert "License-Expression: Apache-2.0" in zipfile.ZipFile(wheel).read(metadata).decode()
        (licence,) = (
            name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/licenses/LICENSE")
        )
        assert zipfile.ZipFile(wheel).read(licence) == (ROOT / "LICENSE").read_bytes()


def test_both_distributions_have_one_version_and_agree_on_what_the_machine_needs() -> None:
    compiler, machine = (
        tomllib.loads((ROOT / path).read_text())["project"] for path in ("pyproject.toml", "runtime/pyproject.toml")
    )
    assert compiler["version"] == machine["version"]
    assert {*machine["dependencies"], *machine["optional-dependencies"]["jit"]} <= set(compiler["dependencies"])
    assert compiler["requires-python"] == machine["requires-python"]


def test_the_version_of_the_package_is_the_one_of_the_distribution() -> None:
    import qcompiler
    import qcompiler.runtime

    assert (
        qcompiler.__version__
        == qcompiler.runtime.__version__
        == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    )


def test_a_platform_wheel_brings_the_machine_code_and_says_where_it_runs(checkout: Path, tmp_path: Path) -> None:
    shutil.copytree(checkout / "runtime", tmp_path / "runtime")
    (tmp_path / "runtime/bundles").mkdir()
    (tmp_path / "runtime/bundles/avx2.image").write_bytes(b"code")
    option = "--config-settings=--build-option=--plat-name=manylinux2014_x86_64"  # as in the Makefile
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, option, tmp_path / "runtime")
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-manylinux2014_x86_64.whl")
    assert "qcompiler_runtime/bundles/avx2.image" in modules(wheel)


def test_an_installed_wheel_imports(wheels: dict[str, Path], tmp_path: Path) -> None:
    zipfile.ZipFile(wheels["onnx_qcompiler"]).extractall(tmp_path / "site")
    python(IMPORT_ALL.format(home=str(tmp_path / "site")) + NO_TOP_LEVEL_NAMES, tmp_path, tmp_path / "site")


def test_an_editable_installation_imports(checkout: Path, tmp_path: Path) -> None:
    options = ("--no-deps", "--no-build-isolation", "--ignore-installed", "--no-warn-script-location")
    pip("install", *options, "--prefix", tmp_path, "--editable", checkout)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path)}))
    python(IMPORT_ALL.format(home=str(checkout)) + NO_TOP_LEVEL_NAMES, tmp_path, site)


def test_a_checkout_that_is_not_installed_imports(checkout: Path) -> None:
    python(IMPORT_ALL.format(home=str(checkout)), checkout)
