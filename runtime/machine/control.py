"""Where the words of a run stand: numbers only, for compiled code and Python alike.

A *control block* describes a run: which part of which instruction is next, how many parts helpers have done, and where
the instructions, the scratch memory and the tables of the border are. A *post* belongs to one helper: it looks there
for the control block of a run that wants help. Both are int64 words; those that threads write at the same time lie in
cache lines of their own. Constants that name places count bytes.
"""

from __future__ import annotations

LINE = 64
"""Bytes that cores exchange."""

WORD, DONE, FACTS, GROUPS = 0, LINE, 2 * LINE, 4 * LINE
"""A control block: the word from which parts are taken; parts done by helpers; what stays the same; first row
and parts of every instruction."""

(
    TABLE, COUNT, SCRATCH, SCRATCH_BYTES, INPUTS, INPUT_COUNT, OUTPUTS, OUTPUT_COUNT, POSTS, HELPERS, YIELD, FAILED,
) = range(FACTS, FACTS + 96, 8)
"""Addresses of the instruction table, of the threads' scratch memory (the leader's first, each `SCRATCH_BYTES` large),
of the border's tables for inputs and outputs and of the helpers' posts, with their numbers; a C function that offers
the core to others, or 0; not 0 when a helper has failed."""

ENDED = -1
"""The word of a run that is over."""

SIDE_BITS = 16
"""The word holds an instruction's index, the parts taken from its front and those taken from its back, so many bits
for each."""

POST_BYTES, WAS = LINE, 8
"""Bytes of a post: the address of a control block, or one of the following; at `WAS` what it was before."""

LOOKING, ASLEEP, TAKEN = 0, -1, -2
"""The helper waits for an address; it must be woken; it is at work in a run, or gone."""

STOPPED, FAULT = -(1 << 61), -(1 << 62)
"""Results of a run whose helper has failed, and of compiled code that met an error which Numba knows."""
