"""Compiles programs as C and runs them: many in one file, in a process of their own, on this CPU or on an emulated
one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from qcompiler.c_output import to_c
from qcompiler.c_output.c_source import FLOAT_PREAMBLE, PREAMBLE, CSource
from qcompiler.runtime import Program
from qcompiler.runtime.binding.bind import bind
from qcompiler.runtime.program.contents import Port

Array = NDArray[Any]
BOARD = Path(__file__).parents[2] / "examples/c/cortex_m"
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror"]


class Target(NamedTuple):
    """Where C is compiled for, and how it is run.

    Attributes:
        flags: of the compiler.
        emulator: the words before the name of what runs.
    """

    compiler: str
    flags: tuple[str, ...] = ()
    emulator: tuple[str, ...] = ()

    @property
    def missing(self) -> str:
        """Which of its tools is not installed; "" for none."""
        return next((tool for tool in (self.compiler, *self.emulator[:1]) if shutil.which(tool) is None), "")


TARGETS = {
    "host": Target("cc", ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")),
    "aarch64": Target("aarch64-linux-gnu-gcc", ("-O2", "-static"), ("qemu-aarch64",)),
    "armv7": Target("arm-linux-gnueabihf-gcc", ("-O2", "-static"), ("qemu-arm",)),
    "cortex-m4": Target(
        "arm-none-eabi-gcc",
        ("-O2", "-mcpu=cortex-m4", "-mthumb", "--specs=rdimon.specs", "-T", str(BOARD / "mps2.ld"),
         str(BOARD / "vectors.c")),
        ("qemu-system-arm", "-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "null",
         "-semihosting-config", "enable=on,target=native", "-kernel"),
    ),
}  # fmt: skip
"""Where the tests run C: this CPU, with sanitizers; emulated ones; a microcontroller without an operating system."""
HAS_COMPILER = not TARGETS["host"].missing
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason="there is no C compiler (cc) on this machine")

_OWN_NAMES = re.compile(r"\b([cf]\d+|compute|(?:in|out)put_\d+_\w+)\b")
_ARRAY = re.compile(r"static const (?P<type>\w+) (?P<name>c\d+)(?P<rest>\[\d+\] = \{\n.*?\};\n)", re.DOTALL)
_MAIN = """
#include <stdio.h>
#include <stdlib.h>

struct job {
    int (*run)(const void *const in[], void *const out[], void *arena);
    size_t arena, inputs, outputs, sizes[16];
};

static const struct job jobs[] = {
%s
};

int main(void)
{
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        const struct job *job = &jobs[i];
        void *places[16], *arena = calloc(1, job->arena); /* as the arena of the machine */
        for (size_t j = 0; j < job->inputs + job->outputs; j++) {
            places[j] = malloc(job->sizes[j] + 1);
            if (j < job->inputs && fread(places[j], 1, job->sizes[j], stdin) != job->sizes[j]) {
                return 9;
            }
        }
        const int status = job->run((const void *const *)places, places + job->inputs, arena);
        fwrite(&status, sizeof status, 1, stdout);
        for (size_t j = 0; j < job->inputs + job->outputs; j++) {
            if (j >= job->inputs) {
                fwrite(places[j], 1, job->sizes[j], stdout);
            }
            free(places[j]);
        }
        free(arena);
    }
    return 0;
}
"""


class CaseInC(NamedTuple):
    """A program, what is fed to it as codes, and the codes that it must give.

    Attributes:
        what: for messages.
        status: what the run must return; where it is not 0, outputs do not matter.
        as_codes: inputs and outputs are codes; else what C has for their types in the model.
        dims: sizes of the program's symbolic dimensions.
    """

    program: Program
    feeds: Mapping[str, Array]
    expected: Mapping[str, Array]
    what: str = ""
    status: int = 0
    as_codes: bool = True
    dims: Mapping[str, int] = {}

    def dtype(self, port: Port) -> np.dtype[Any]:
        """The type in which an input or output is given."""
        if self.as_codes or port.scale is None:
            return self.program.code_dtype(port)
        return np.dtype("float64" if port.dtype == "float64" else "float32")


def check_in_c(cases: Sequence[CaseInC], target: Target = TARGETS["host"]) -> None:
    """All programs, compiled as one file, give the codes that they must."""
    sources = [to_c(case.program, f"p{number}", case.dims) for number, case in enumerate(cases)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "all.c"
        path.write_text(_together(sources) + _MAIN % "\n".join(map(_job, sources, cases)), encoding="ascii")
        binary = str(path.with_suffix(""))
        subprocess.run([target.compiler, *STRICT, str(path), *target.flags, "-o", binary], check=True)
        feeds = b"".join(_bytes(case, port) for case in cases for port in case.program.inputs)
        done = subprocess.run([*target.emulator, binary], input=feeds, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    place = 0
    for case in cases:
        place = _check(case, done.stdout, place)
    assert place == len(done.stdout)


def _check(case: CaseInC, data: bytes, place: int) -> int:
    """Compare what one run returned, from a place of the data on; the place behind it."""
    status = int(np.frombuffer(data, np.int32, 1, place)[0])
    place += 4
    assert status == case.status, f"{case.what}: returned {status}"
    bound = bind(case.program, **case.dims)
    for port in case.program.outputs:
        dtype, shape = case.dtype(port), bound.output_shapes[port.name]
        count = int(np.prod(shape))
        values = np.frombuffer(data, dtype, count, place).reshape(shape)
        if status == 0:
            np.testing.assert_array_equal(values, case.expected[port.name], err_msg=f"{case.what}, output {port.name}")
        place += values.nbytes
    return place


def _bytes(case: CaseInC, port: Port) -> bytes:
    return np.ascontiguousarray(case.feeds[port.name], case.dtype(port)).tobytes()


def _together(sources: Sequence[CSource]) -> str:
    """All programs as one file; what they share is in it once."""
    kernels: dict[str, str] = {}
    for source in sources:
        for name, text in (*source.kernels.items(), *source.border_kernels.items()):
            kernels.setdefault(name, text)
    headers = [source.header for source in sources]
    arrays: dict[tuple[str, str], str] = {}
    bodies = [_renamed(source, arrays) for source in sources]
    return "\n".join([*headers, PREAMBLE, FLOAT_PREAMBLE, "#include <math.h>", *kernels.values(), *bodies])


def _renamed(source: CSource, arrays: dict[tuple[str, str], str]) -> str:
    """The body and the border with names of their own; ``arrays`` are the constants that others have, by content."""
    names: dict[str, str] = {}

    def once(found: re.Match[str]) -> str:
        names[found["name"]] = arrays.setdefault((found["type"], found["rest"]), f"{source.name}_{found['name']}")
        return found[0] if names[found["name"]].startswith(f"{source.name}_") else ""

    text = _ARRAY.sub(once, f"{source.body}\n{source.border}")
    return _OWN_NAMES.sub(lambda word: names.get(word[0], f"{source.name}_{word[0]}"), text)


def _job(source: CSource, case: CaseInC) -> str:
    bound = bind(case.program, **case.dims)
    ports, shapes = (*case.program.inputs, *case.program.outputs), {**bound.input_shapes, **bound.output_shapes}
    sizes = [int(np.prod(shapes[port.name])) * case.dtype(port).itemsize for port in ports]
    numbers = f"{len(case.program.inputs)}, {len(case.program.outputs)}, {{{', '.join(map(str, sizes))}}}"
    function = f"{source.name}_run{'_codes' if case.as_codes else ''}"
    return f"    {{{function}, {source.name.upper()}_ARENA_BYTES, {numbers}}},"
