"""A whole run in compiled code: inputs in, all instructions, outputs out, by one thread or several.

Threads share a run without waking each other and without Python: one leads, others help. The leader takes the parts of
an instruction from the front, helpers take them from the back: so each finds in its own caches most of what it wrote
for the instruction before. Whoever is there takes the next part; the leader waits only for parts that somebody has
taken. `control.py` says what stands where.
"""

from __future__ import annotations

from ..cpu.jit import jit
from ..vector.atomics import call, exchange_if, fetch_add, load_acquire, pause, store_release
from ..vector.memory import load_i64, store_64
from .border_loops import convert
from .control import (
    ASLEEP,
    COUNT,
    DONE,
    ENDED,
    FAILED,
    GROUPS,
    HELPERS,
    INPUT_COUNT,
    INPUTS,
    LOOKING,
    OUTPUT_COUNT,
    OUTPUTS,
    POST_BYTES,
    POSTS,
    SCRATCH,
    SCRATCH_BYTES,
    SIDE_BITS,
    STOPPED,
    TABLE,
    TAKEN,
    WAS,
    YIELD,
)
from .interpreter import ROW_BYTES, execute, step

_SIDE = (1 << SIDE_BITS) - 1
_NOTHING, _AGAIN = -2, -3
_PATIENCE = 1000
"""Looks, some 20 ns each, before a thread that waits offers its core to others."""


@jit
def _fact(control: int, place: int) -> int:
    return load_i64(control + place, 0)


@jit
def _wait_a_little(control: int, looks: int) -> None:
    if looks < _PATIENCE or _fact(control, YIELD) == 0:
        pause()
    else:
        call(_fact(control, YIELD))


@jit
def _claim(control: int, leads: bool) -> int:
    """Take a part of the instruction that is shared out: the index of its row; or ENDED, NOTHING, or AGAIN."""
    word: int = load_acquire(control)
    if word == ENDED:
        return ENDED
    index, front, back = word >> (2 * SIDE_BITS), (word >> SIDE_BITS) & _SIDE, word & _SIDE
    first, count = load_i64(control + GROUPS, 2 * index), load_i64(control + GROUPS, 2 * index + 1)
    if front + back >= count:
        return _NOTHING
    if exchange_if(control, word, word + (1 << SIDE_BITS if leads else 1)) == 0:
        return _AGAIN
    return first + (front if leads else count - 1 - back)


@jit
def _share(control: int, index: int) -> int:
    """Run an instruction in parts together with the helpers; how many parts they have taken."""
    table, scratch = _fact(control, TABLE), _fact(control, SCRATCH)
    store_release(control, index << (2 * SIDE_BITS))
    claimed = _AGAIN
    while claimed != _NOTHING:
        claimed = _claim(control, True)
        if claimed >= 0:
            step(table + claimed * ROW_BYTES, scratch)
    taken: int = load_acquire(control) & _SIDE
    return taken


@jit
def _all_done(control: int, due: int) -> bool:
    """Wait for the helpers to finish their parts; False: one has failed."""
    looks = 0
    while load_acquire(control + DONE) < due:
        if load_acquire(control + FAILED) != 0:
            return False
        _wait_a_little(control, looks)
        looks += 1
    return True


@jit
def _lead(control: int) -> int:
    """All instructions in order, those that have parts together with the helpers."""
    table, scratch, due = _fact(control, TABLE), _fact(control, SCRATCH), load_acquire(control + DONE)
    for index in range(_fact(control, COUNT)):
        if load_i64(control + GROUPS, 2 * index + 1) > 0:
            due += _share(control, index)
            if not _all_done(control, due):
                return STOPPED
        elif step(table + index * ROW_BYTES, scratch) != 0:
            return index + 1
    return 0


@jit
def _run_shared(control: int) -> int:
    """Offer the run to the helpers, lead it, and take the offer back from those that have not come."""
    store_release(control, _fact(control, COUNT) << (2 * SIDE_BITS))  # behind the last instruction: nothing to take yet
    posts, helpers = _fact(control, POSTS), _fact(control, HELPERS)
    for post in range(posts, posts + helpers * POST_BYTES, POST_BYTES):
        store_64(post + WAS, 0, LOOKING)
        if exchange_if(post, LOOKING, control) == 0 and exchange_if(post, ASLEEP, control) != 0:
            store_64(post + WAS, 0, ASLEEP)
    status = _lead(control)
    store_release(control, ENDED)
    for post in range(posts, posts + helpers * POST_BYTES, POST_BYTES):
        exchange_if(post, control, load_i64(post + WAS, 0))
    return status


@jit
def run(control: int) -> int:
    """Run a program: convert its inputs, execute it, convert its outputs.

    Returns:
        0; 1 + the index of the instruction that stopped the run; minus 1 and the index of an input that is NaN or
        infinity; STOPPED.
    """
    refused = convert(_fact(control, INPUTS), _fact(control, INPUT_COUNT))
    if refused != 0:
        return -refused
    if _fact(control, HELPERS) > 0:
        status = _run_shared(control)
    else:
        status = execute(_fact(control, TABLE), 0, _fact(control, COUNT), _fact(control, SCRATCH))
    if status == 0:
        convert(_fact(control, OUTPUTS), _fact(control, OUTPUT_COUNT))
    return status


@jit
def _help(control: int, helper: int) -> None:
    """Run parts until the run ends."""
    table, scratch = _fact(control, TABLE), _fact(control, SCRATCH) + (1 + helper) * _fact(control, SCRATCH_BYTES)
    looks, claimed = 0, _AGAIN
    while claimed != ENDED:
        claimed = _claim(control, False)
        if claimed >= 0:
            step(table + claimed * ROW_BYTES, scratch)
            fetch_add(control + DONE, 1)
            looks = 0
        elif claimed == _NOTHING:
            _wait_a_little(control, looks)
            looks += 1


@jit
def attend(post: int, helper: int, patience: int) -> int:
    """Help every run that asks at ``post``; 0 after looking there ``patience`` times in vain."""
    exchange_if(post, ASLEEP, LOOKING)
    looks = 0
    while True:
        control = load_acquire(post)
        if control > 0 and exchange_if(post, control, TAKEN) != 0:
            _help(control, helper)
            store_release(post, LOOKING)
            looks = 0
        elif looks >= patience and exchange_if(post, LOOKING, ASLEEP) != 0:
            return 0
        else:
            pause()
            looks += 1
