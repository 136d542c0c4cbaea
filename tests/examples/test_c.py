"""The example in C: what it prints, on this CPU and on an emulated microcontroller, is what the machine computes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

import qcompiler
from models.small import SMALL_TASKS
from qcompiler.api import Options
from qcompiler.c_output import write_c
from qcompiler.runtime import Session
from tests.c_output.compiled import TARGETS

EXAMPLE = Path(__file__).parents[2] / "examples" / "c"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as C, an image, and the line that the machine would print."""
    folder = tmp_path_factory.mktemp("digits")
    task = SMALL_TASKS["digits"]()
    compiled = qcompiler.compile(task.model, data=task.calibration[:1], options=Options(level=0), for_onnx=False)
    write_c(compiled.program, folder / "digits.c", {"batch": 1})
    pixels = np.rint(255 * dict(task.feeds[0])["image"][:1]).astype(np.uint8)
    (folder / "digit.gray").write_bytes(pixels.tobytes())
    scores = Session(compiled.program).run({"image": pixels}, codes=["image", "logits"])["logits"][0]
    (folder / "expected").write_text(f"{' '.join(map(str, scores))} -> {scores.argmax()}\n")
    return folder


@pytest.mark.parametrize("name", ["host", "cortex-m4"])
def test_the_example_prints_what_the_machine_computes(name: str, folder: Path) -> None:
    target = TARGETS[name]
    if target.missing:
        pytest.skip(f"{target.missing} is not installed")
    binary = folder / f"digits-{name}"
    sources = ["digits.c", EXAMPLE / "read_digit.c"]
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-DDIGITS_NO_FLOAT", "-I.", *target.flags]
    subprocess.run([target.compiler, *sources, *flags, "-o", binary], cwd=folder, check=True)
    image = (folder / "digit.gray").read_bytes()
    done = subprocess.run([*target.emulator, binary], input=image, capture_output=True, check=True)
    assert done.stdout.decode() == (folder / "expected").read_text()
