"""Where machine code is kept: read-only folders, no home, full disks, several processes at once, byte code alone,
another CPU's features.

What takes a minute is replaced here by an object file of four small functions; everything around it is as it is.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import qcompiler.runtime
from qcompiler.runtime.run import cache
from qcompiler.runtime.run.kept_files import UNFINISHED, keep

ROOT = Path(qcompiler.runtime.__file__).parent
LINUX = pytest.mark.skipif(
    not (sys.platform.startswith("linux") and platform.machine() == "x86_64"), reason="images are for Linux on x86-64"
)
PROLOGUE = """
import os, sys, time
from qcompiler.runtime.cpu import features
from qcompiler.runtime.run import cache, machine_code
features.BUNDLES = machine_code.BUNDLES = "/nowhere"

def compiled():
    from llvmlite import binding
    with open(os.environ["COUNT"], "a") as file:
        file.write("x")
    time.sleep(float(os.environ.get("PAUSE", "0")))
    functions = [("run", 1, 7), ("attend", 3, 0), ("execute", 4, 0), ("convert", 2, 0)]
    text = "".join(f"define i64 @{name}({', '.join(['i64'] * count)}) {{ ret i64 {value} }}\\n" for name, count,
    value in functions)
    machine = features.target_machine()
    return bytes(machine.emit_object(binding.parse_assembly(text)))

machine_code.compiled = compiled
"""
LOAD = PROLOGUE + "print(machine_code.load(*sys.argv[1:]).run(0))"


class Machine:
    """A computer: an environment, and how often it has compiled."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.count = folder / "count"
        kept = {
            key: value for key, value in os.environ.items() if key not in ("HOME", "XDG_CACHE_HOME", cache.VARIABLE)
        }
        temporary = folder / "tmp"
        temporary.mkdir(exist_ok=True)
        self.environment = {**kept, "COUNT": str(self.count), "TMPDIR": str(temporary), **variables}

    def start(self, code: str = LOAD, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.Popen(
            command,
            cwd=ROOT.parent,
            env={**self.environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def load(self, code: str = LOAD, *arguments: str, **variables: str) -> str:
        """What the machine said on standard error."""
        process = self.start(code, *arguments, **variables)
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        assert out == "7\n"
        return error

    @property
    def compilations(self) -> int:
        return len(self.count.read_text()) if self.count.exists() else 0


def test_code_is_compiled_once_and_says_so(tmp_path: Path) -> None:
    machine = Machine(tmp_path, HOME=str(tmp_path / "home"))
    assert "once: about a minute" in machine.load()
    assert machine.load() == ""
    assert machine.compilations == 1


@LINUX
def test_a_cache_that_cannot_be_written_is_read(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if folder.is_relative_to(tempfile.gettempdir()) and folder != Path(tempfile.gettempdir()):
            folder.chmod(0o755)
    machine = Machine(tmp_path, QCOMPILER_CACHE=str(tmp_path / "warm"))
    machine.load()
    for path in (tmp_path / "warm", *(tmp_path / "warm").rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    nobody = "" if os.getuid() else "machine_code.cache_key(); os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    assert machine.load(LOAD.replace("print(", f"{nobody}print("), HOME="/") == ""
    assert machine.compilations == 1


@pytest.mark.parametrize("home", [None, "/", "/proc/nowhere"])
def test_without_a_home_code_is_kept_among_the_temporary_files(tmp_path: Path, home: str | None) -> None:
    machine = Machine(tmp_path)
    unknown = "import pwd\ndef getpwuid(uid): raise KeyError(uid)\npwd.getpwuid = getpwuid\n" if home is None else ""
    variables = {} if home is None else {"XDG_CACHE_HOME": "/proc/nowhere", "HOME": home}
    for _ in range(2):
        assert "Traceback" not in machine.load(unknown + LOAD, **variables)
    assert machine.compilations == 1


def test_a_folder_that_others_may_write_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    (own,) = cache.folders("x")[1:]
    own.mkdir(mode=0o700)
    assert cache.folders("x")[1:] == [own]
    own.chmod(0o777)
    assert cache.folders("x")[1:] == []
    own.rmdir()
    own.symlink_to(tmp_path)
    assert cache.folders("x")[1:] == []


def test_the_callers_folder_comes_before_the_variable_and_that_before_the_users(tmp_path: Path) -> None:
    machine = Machine(tmp_path, HOME=str(tmp_path / "home"))
    machine.load(LOAD, str(tmp_path / "chosen"), QCOMPILER_CACHE=str(tmp_path / "named"))
    assert list((tmp_path / "chosen").rglob("machine.o"))
    machine.load(LOAD, QCOMPILER_CACHE=str(tmp_path / "named"))
    assert list((tmp_path / "named").rglob("machine.o"))
    assert not (tmp_path / "home").exists()


FULL = """
import errno, builtins
write = os.fdopen
def full(handle, mode):
    file = write(handle, mode)
    class File:
        def __enter__(self): return self
        def __exit__(self, *args): file.close()
        def write(self, data):
            if cache.Path(os.readlink(f"/proc/self/fd/{handle}")).is_relative_to(os.environ["FULL"]):
                file.write(data[:10]); file.flush()
                raise OSError(errno.ENOSPC, "No space left on device")
            return file.write(data)
    return File()
os.fdopen = full
"""


@LINUX
def test_a_full_disk_leaves_nothing_behind_and_another_folder_serves(tmp_path: Path) -> None:
    home = tmp_path / "home"
    machine = Machine(tmp_path, HOME=str(home), FULL=str(home))
    code = LOAD.replace("machine_code.compiled = compiled", f"machine_code.compiled = compiled\n{FULL}")
    for _ in range(2):
        machine.load(code)
    assert machine.compilations == 1
    assert not [path for path in home.rglob("*") if path.is_file() and path.stat().st_size]
    assert "cannot be kept" in machine.load(
        code, FULL=str(tmp_path), HOME=str(tmp_path / "other"), TMPDIR=str(tmp_path / "home")
    )


@LINUX
def test_several_processes_at_once_compile_once(tmp_path: Path) -> None:
    machine = Machine(tmp_path, HOME=str(tmp_path / "home"), PAUSE="3")
    processes = [machine.start() for _ in range(3)]
    results = [process.communicate(timeout=120) for process in processes]
    assert [out for out, _ in results] == ["7\n"] * 3, results
    assert machine.compilations == 1


@LINUX
def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path: Path) -> None:
    machine = Machine(tmp_path, HOME=str(tmp_path / "home"))
    killed = machine.start(PAUSE="600")
    deadline = time.monotonic() + 60
    while machine.compilations == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    machine.load()
    assert machine.compilations == 2


KEY = "import sys; sys.path.insert(0, sys.argv[1]); from copied.run.machine_code import cache_key; print(cache_key())"


def test_byte_code_alone_has_a_key_of_its_own_content(tmp_path: Path) -> None:
    """An update of an installation without sources must not run the machine code of the one before."""
    shutil.copytree(
        ROOT, tmp_path / "copied", ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info", "bundles")
    )

    def key() -> str:
        subprocess.run([sys.executable, "-m", "compileall", "-q", "-b", "-f", str(tmp_path / "copied")], check=True)
        shutil.copytree(
            tmp_path / "copied", tmp_path / "bare/copied", ignore=shutil.ignore_patterns("*.py", "__pycache__")
        )
        done = subprocess.run(
            [sys.executable, "-c", KEY, str(tmp_path / "bare")],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        shutil.rmtree(tmp_path / "bare")
        return done.stdout

    before = key()
    kernel = tmp_path / "copied/kernels/wide.py"
    kernel.write_text(kernel.read_text() + "\nADDED = 1\n")
    assert key() != before


def test_an_archive_has_a_key_of_its_own_content(tmp_path: Path) -> None:
    shutil.copytree(
        ROOT, tmp_path / "source/copied", ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info", "bundles")
    )
    keys = []
    for name in ("one", "two"):
        archive = shutil.make_archive(str(tmp_path / name), "zip", tmp_path / "source")
        done = subprocess.run(
            [sys.executable, "-c", KEY, archive], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        keys.append(done.stdout)
        kernel = tmp_path / "source/copied/kernels/wide.py"
        kernel.write_text(kernel.read_text() + "\nADDED = 1\n")
    assert keys[0] != keys[1]


@LINUX
@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+avx512f,+avx512vnni"}, "the machine code needs"),
        ({"NUMBA_CPU_NAME": "sapphirerapids"}, "set NUMBA_CPU_FEATURES as well"),
    ],
)
def test_code_for_a_cpu_that_is_not_there_is_refused(tmp_path: Path, variables: dict[str, str], said: str) -> None:
    code = PROLOGUE + "features.present = machine_code.present = lambda: frozenset({'avx2'})\n" + (
        "try: machine_code.load()\nexcept machine_code.MachineError as error: print(error)"
    )
    out, error = Machine(tmp_path, HOME=str(tmp_path)).start(code, **variables).communicate(timeout=60)
    assert said in out, error
    assert out.count("\n") == 1


@LINUX
def test_an_image_for_another_cpu_is_refused(tmp_path: Path) -> None:
    code = PROLOGUE + (
        "image = machine_code.make_image(compiled(), ('run',), machine_code.MadeFor('', ('avx10',)))\n"
        "try: machine_code._map(image)\nexcept machine_code.MachineError as error: print(error)"
    )
    out, error = Machine(tmp_path, HOME=str(tmp_path)).start(code).communicate(timeout=60)
    assert out == "the machine code needs avx10, which this CPU does not have\n", error


def test_without_a_compiler_the_error_says_what_to_install(tmp_path: Path) -> None:
    code = PROLOGUE + (
        "machine_code.find_spec = lambda name: None\n"
        "try: machine_code.load()\nexcept machine_code.MachineError as error: print(error)"
    )
    out, error = Machine(tmp_path, HOME=str(tmp_path)).start(code).communicate(timeout=60)
    assert "pip install 'qcompiler-runtime[jit]'" in out, error


def test_what_has_not_been_used_for_longest_is_deleted(tmp_path: Path) -> None:
    for age in range(12):
        folder = tmp_path / str(age)
        folder.mkdir()
        assert keep(folder / "machine.o", b"code")
        os.utime(folder, (1e9 - age, 1e9 - age))
    litter = tmp_path / "0" / f"{UNFINISHED}x"
    litter.write_bytes(b"")
    os.utime(litter, (0, 0))
    os.utime(tmp_path / "0", (1e9, 1e9))
    assert cache.find([tmp_path / "11"], "machine.o") == b"code"
    cache.prune(tmp_path)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [*range(7), 11]
    assert not litter.exists()
