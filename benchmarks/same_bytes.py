"""Whether the same command gives the same file on another kind of CPU.

    python -m benchmarks.same_bytes                                          the small models, as CPUs of other kinds
    python -m benchmarks.same_bytes digits --as native qemu:Haswell          emulated by qemu-x86_64 (Debian: qemu-user)
    python -m benchmarks.same_bytes --zoo FOLDER effnet ocr_rec --weights int8 --as native other
    python -m benchmarks.same_bytes --as native > here.txt                   on two machines; then compare the two files

Each sample is a fresh process that compiles a model and writes it; a line tells the model, the options, the sha256 of
the file, the kind of CPU and how it was forced. Exit status 1 when two files of a model differ. How a CPU is forced:

* ``native``: not at all.
* ``other``: numpy without the instruction sets it chooses at run time, OpenBLAS with the kernels of a CPU of 2008,
Numba's code for any x86 CPU,
  one thread, another seed of Python's hashes. onnxruntime alone knows no such switch.
* ``qemu:NAME``: everything in user-mode emulation of that CPU. qemu has no AVX-512: a machine that has it is compared
  with one that has not by ``native qemu:Haswell`` there. CPUs without fused multiply-adds (``qemu:Nehalem``) round sums
  in another way and may write other files.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from qcompiler.errors import OptionError

ROOT = Path(__file__).parent.parent
SMALL = ("digits", "lines", "languages")

_PROGRAM = """
import hashlib, json, platform, sys
from pathlib import Path
import numpy as np
from qcompiler.api import Options, compile
job = json.loads(sys.argv[1])
compiled = compile(job["model"], data=job["data"], options=Options(**job["options"]),
for_onnx=job["target"].endswith(".onnx"))
if job["target"].endswith(".onnx"):
    compiled.save(job["target"])
else:
    compiled.program.save(job["target"])
print(json.dumps(hashlib.sha256(Path(job["target"]).read_bytes()).hexdigest()))
"""


@dataclass(frozen=True)
class Job:
    """A model to compile.

    Attributes:
        name: of the model.
        model, data: paths of the model and of its calibration feeds.
        options: fields of `qcompiler.api.Options`.
        suffix: ``.onnx`` or ``.qprog``.
    """

    name: str
    model: Path
    data: Path
    options: Mapping[str, object]
    suffix: str = ".onnx"

    def __str__(self) -> str:
        return " ".join((self.name, self.suffix, *(f"{key}={value}" for key, value in self.options.items())))


def environment(how: str) -> dict[str, str]:
    """Variables under which a process compiles as ``how`` says."""
    if how != "other":
        return {}
    return {
        "NPY_DISABLE_CPU_FEATURES": " ".join(dispatched()), "OPENBLAS_CORETYPE": "Nehalem", "OPENBLAS_NUM_THREADS": "1",
        "NUMBA_CPU_NAME": "x86-64",
        "NUMBA_CPU_FEATURES": "", "PYTHONHASHSEED": "1",
    }  # fmt: skip


def dispatched() -> list[str]:
    """The instruction sets among which numpy chooses at run time, and which this CPU has."""
    try:
        umath = import_module("numpy._core._multiarray_umath")
    except ImportError:  # numpy 1
        umath = import_module("numpy.core._multiarray_umath")
    return [name for name in umath.__cpu_dispatch__ if umath.__cpu_features__.get(name)]


def command(how: str) -> list[str]:
    """What starts Python so.

    Raises:
        OptionError: there is no qemu, or no such way.
    """
    if not how.startswith("qemu:"):
        if how not in ("native", "other"):
            raise OptionError(
                f"--as {how}: must be native, other or qemu:NAME with a CPU that `qemu-x86_64 -cpu help` lists"
            )
        return [sys.executable]
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        raise OptionError(f"--as {how}: there is no qemu-x86_64; install qemu-user")
    return [emulator, "-cpu", how.partition(":")[2], sys.executable]


def digest(job: Job, how: str) -> str:
    """The sha256 of the file that a process writes which compiles as ``how`` says.

    Raises:
        OptionError: there is no such way.
        RuntimeError: the process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"{job.name}{job.suffix}"
        text = json.dumps(
            {"model": str(job.model), "data": str(job.data), "options": dict(job.options), "target": str(target)}
        )
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        variables = {**os.environ, **environment(how), "PYTHONPATH": path}
        done = subprocess.run(
            [*command(how), "-c", _PROGRAM, text], env=variables, cwd=ROOT, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise RuntimeError(
            f"{job} as {how}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'failed'}"
        )
    return str(json.loads(done.stdout.strip().splitlines()[-1]))


def cpu_model() -> str:
    """What the system calls this CPU, and which of the extensions that matter it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown CPU"
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(facts.get("flags", "").split())
    return " ".join(
        (
            facts.get("model name", "unknown CPU"),
            *(flag for flag in ("avx2", "fma", "avx512f", "avx512_vnni") if flag in flags),
        )
    )


def _jobs(chosen: argparse.Namespace) -> list[Job]:
    jobs: list[Job] = []
    for name in chosen.models:
        if name in SMALL:
            model, data = ROOT / "models" / name / "model.onnx", ROOT / "models" / name / "calibration.npz"
        else:
            model, data = _zoo(name, chosen.zoo)
        options = [{"level": chosen.level, "weights": weights} for weights in chosen.weights]
        jobs.extend(Job(name, model, data, each, chosen.suffix) for each in options)
    return jobs


def _zoo(name: str, folder: Path | None) -> tuple[Path, Path]:
    """A model of the zoo, with its calibration feeds as a folder of files."""
    import numpy as np

    from models.zoo import zoo_task

    if folder is None:
        raise OptionError(f"{name}: is in no folder; name one with --zoo, or take some of {', '.join(SMALL)}")
    task, feeds = zoo_task(name, folder), folder / "same_bytes" / name
    feeds.mkdir(parents=True, exist_ok=True)
    for number, feed in enumerate(task.calibration):
        np.savez(feeds / f"{number:03}.npz", **dict(feed))  # type: ignore[arg-type]
    return task.model, feeds


def compare(jobs: Sequence[Job], ways: Sequence[str]) -> bool:
    """Print a line for each file; False when two of a job differ."""
    same = True
    for job in jobs:
        found: dict[str, str] = {}
        for how in ways:
            start = time.perf_counter()
            found[how] = digest(job, how)
            _say(f"{job}  {found[how]}  {how} on {cpu_model()}  ({time.perf_counter() - start:.0f} s)")
        if len(set(found.values())) > 1:
            _say(f"{job}: the files differ")
            same = False
    return same


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all files of each model are the same; 1: some differ; 2: it cannot be told."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.same_bytes", description="Compile as other CPUs would; compare the files."
    )
    parser.add_argument(
        "models", nargs="*", default=list(SMALL), help=f"some of {', '.join(SMALL)}, or tasks of the zoo"
    )
    parser.add_argument("--zoo", type=Path, help="where the larger models are, or are put")
    parser.add_argument(
        "--as", dest="ways", nargs="+", default=["native", "other"], help="native, other, qemu:Haswell, …"
    )
    parser.add_argument("--level", type=int, default=2, help="as -O (default: 2)")
    parser.add_argument("--weights", nargs="+", default=["int8", "int4"], help="grids (default: int8 int4)")
    parser.add_argument("--suffix", choices=(".onnx", ".qprog"), default=".onnx", help="kind of file (default: .onnx)")
    chosen = parser.parse_args(arguments)
    try:
        return 0 if compare(_jobs(chosen), chosen.ways) else 1
    except (OptionError, RuntimeError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
