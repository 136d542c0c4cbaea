"""Machine code from the cache: images that are mapped, object files that llvmlite links, damaged files, another CPU."""

from __future__ import annotations

import ctypes
import json
import platform
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from llvmlite import binding

from qcompiler.runtime.binding.bind import bind
from qcompiler.runtime.cpu import features
from qcompiler.runtime.cpu.features import AARCH64, TARGETS, X86_64, target_machine
from qcompiler.runtime.cpu.isa import best_isa
from qcompiler.runtime.run import machine_code
from qcompiler.runtime.run.arena import Arena
from qcompiler.runtime.run.cache import find
from qcompiler.runtime.run.image import MadeFor, made_for, make_image, map_image
from tests.runtime.programs import two_layers

MAPS_IMAGES = sys.platform.startswith("linux") and platform.machine() in (X86_64, AARCH64)
LINUX = pytest.mark.skipif(not MAPS_IMAGES, reason="images are for Linux on x86-64 and aarch64")
EMULATOR = shutil.which("qemu-aarch64")
SOURCE = """
@table = private constant [4 x i64] [i64 10, i64 20, i64 30, i64 40], align 64
@place = private constant i64* getelementptr ([4 x i64], [4 x i64]* @table, i64 0, i64 1)
declare void @llvm.memset.p0i8.i64(i8*, i8, i64, i1)
declare i32 @puts(i8*)
define private i64 @twice(i64 %x) noinline { %y = mul i64 %x, 2 ret i64 %y }
define i64 @pick(i64 %i) {
  %p = getelementptr [4 x i64], [4 x i64]* @table, i64 0, i64 %i
  %v = load i64, i64* %p
  %w = call i64 @twice(i64 %v)
  ret i64 %w
}
define i64 @second() { %p = load volatile i64*, i64** @place %v = load i64, i64* %p ret i64 %v }
define i64 @clear(i64 %address, i64 %count) {
  %p = inttoptr i64 %address to i8*
  call void @llvm.memset.p0i8.i64(i8* %p, i8 7, i64 %count, i1 false)
  ret i64 0
}
"""


MADE = MadeFor("sources", ("avx2",))


def assembled(source: str) -> bytes:
    if binding.llvm_version_info[0] >= 15:  # opaque pointers
        source = re.sub(r"\b(?:i64|i8|\[4 x i64\])\*+", "ptr", source).replace("p0i8", "p0")
    module, machine = binding.parse_assembly(source), target_machine()
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    return bytes(machine.emit_object(module))


@LINUX
def test_an_image_runs_like_its_object_file() -> None:
    image = make_image(assembled(SOURCE), ("pick", "second", "clear"), MADE)
    assert image is not None
    assert made_for(image) == MADE
    mapped = map_image(image)
    assert mapped is not None
    functions = {
        name: ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(place)
        for name, place in mapped.addresses.items()
    }
    assert [functions["pick"](i, 0) for i in range(4)] == [20, 40, 60, 80]
    assert functions["second"](0, 0) == 20
    data = np.zeros(1000, np.uint8)
    functions["clear"](data.ctypes.data, 999)
    assert data[:999].min() == 7
    assert data[999] == 0


WHOLE = """
define i8* @fill(i8* %p, i32 %value, i64 %count) {
  %last = sub i64 %count, 1
  %end = getelementptr i8, i8* %p, i64 %last
  store volatile i8 9, i8* %end
  ret i8* %p
}
define i64 @whole() {
  %data = alloca [4 x i64]
  %address = ptrtoint [4 x i64]* %data to i64
  %first = call i64 @pick(i64 1)
  %second = call i64 @second()
  %done = call i64 @clear(i64 %address, i64 31)
  %end = add i64 %address, 30
  %byte = inttoptr i64 %end to i8*
  %cleared = load volatile i8, i8* %byte
  %third = zext i8 %cleared to i64
  %most = add i64 %first, %second
  %sum = add i64 %most, %third
  ret i64 %sum
}
"""


def executable(image: bytes, base: int) -> bytes:
    """An ELF file for aarch64 with an image at the address ``base``: the exit status is what ``whole`` returns. The C
    function of the image is its entry ``fill``.
    """
    length = struct.unpack_from("<I", image)[0]
    head, content = json.loads(image[4 : 4 + length]), bytearray(image[4 + length :])
    for slot in head["slots"].values():
        struct.pack_into("<q", content, slot, base + head["entries"]["fill"])
    for place in head["absolute"]:
        struct.pack_into("<q", content, place, base + struct.unpack_from("<q", content, place)[0])
    start, size = base - 4096, 4096 + len(content)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 183, 1, start + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, start, start, size, size, 4096)
    call = 0x94000000 | (4096 - 120 + head["entries"]["whole"]) >> 2
    leave = struct.pack("<III", call, 0xD2800BC8, 0xD4000001)  # bl whole; mov x8, exit_group; svc 0
    return (header + segment + leave).ljust(4096, b"\0") + bytes(content)


@pytest.mark.skipif(EMULATOR is None, reason="needs qemu-aarch64")
@pytest.mark.parametrize("base", [0x400000, 0x7FFFF000])
def test_an_image_for_an_arm_is_made_here_and_runs_there(
    base: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "target", lambda: TARGETS["neon"])
    image = make_image(assembled(SOURCE + WHOLE), ("whole", "fill"), MadeFor("sources", ("neon",)))
    assert image is not None
    path = tmp_path / "program"
    path.write_bytes(executable(image, base))
    path.chmod(0o755)
    done = subprocess.run([str(EMULATOR), str(path)], check=False, timeout=60)
    assert done.returncode == 40 + 20 + 9


@LINUX
def test_what_an_image_cannot_hold_is_left_to_llvmlite() -> None:
    calling = SOURCE + "define i64 @speak() { %r = call i32 @puts(i8* null) ret i64 0 }"
    assert make_image(assembled(calling), ("speak",), MADE) is None
    for other in (b"", b"MZ" + bytes(100), b"\x7fELF\x01\x01" + bytes(100)):
        assert make_image(other, ("pick",), MADE) is None


def test_the_linked_object_file_gives_the_bits_of_the_image() -> None:
    code = find(machine_code.places(), "machine.o")
    mapped = machine_code.load()
    code = code or machine_code.compiled()
    program = two_layers()
    bound = bind(program, batch=5)
    x = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
    results = []
    for machine in (mapped, machine_code._link(code)):
        arena = Arena(machine, program, bound, best_isa())
        placed, outputs = arena.border.place([x]), arena.border.results()
        assert arena.run() == 0
        results.append(outputs)
        del placed
    for name, value in results[0].items():
        np.testing.assert_array_equal(results[1][name], value)
