"""The table of changes against the schemas that onnx ships."""

from __future__ import annotations

from itertools import pairwise

import onnx
import onnx.defs
import pytest

from qcompiler.onnx_io.opset import CHANGES, OLDEST
from qcompiler.onnx_io.schema import history

OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""})

KNOWN = {
    ("BatchNormalization", 14),  # the running statistics of training; inference is the same
    ("OptionalHasElement", 18),  # its input may be absent
}
"""Differences in form that mean nothing for a node that fits both forms."""


def form(schema: onnx.defs.OpSchema) -> tuple[object, ...]:
    """What a node must look like, types aside: attributes that were there all along with their defaults, and inputs."""
    attributes = {
        name: (attribute.type, attribute.required, str(attribute.default_value))
        for name, attribute in schema.attributes.items()
    }
    return attributes, [parameter.option for parameter in schema.inputs], len(schema.outputs)


def changes_of(op: str) -> list[int]:
    """Versions in which an operator's older nodes would read differently: a lost attribute or default, or other
    inputs.
    """
    schemas = history(op)
    found = []
    for old, new in pairwise(schemas):
        (before, inputs, _), (after, now, _) = form(old), form(new)
        lost = {name for name, value in before.items() if after.get(name) != value}
        if (
            lost
            or now[: len(inputs)] != inputs
            or any(onnx.defs.OpSchema.FormalParameterOption.Single == option for option in now[len(inputs) :])
        ):
            found.append(max(new.since_version, OLDEST))
    return found


@pytest.mark.parametrize("op", OPERATORS)
def test_every_change_of_form_is_in_the_table(op):
    for version in changes_of(op):
        if version <= 21:
            assert (op, version) in CHANGES or (op, version) in KNOWN


@pytest.mark.parametrize(("op", "version"), sorted(CHANGES))
def test_the_table_names_real_versions(op, version):
    assert version in [schema.since_version for schema in history(op)]
