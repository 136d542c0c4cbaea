"""What a model file says besides its graph, and that a compiled file says again.

Documentation, producer, version, metadata, and its inputs and outputs as declared.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx

from qcompiler.graph.ir import ORIGIN, STANDARD_DOMAINS, Graph

__all__ = ["Origin", "origin_of", "restore", "restore_sequences"]


@dataclass(frozen=True)
class Origin:
    """Of the file that a graph was imported from.

    Attributes:
        model: the file's own fields, without its graph.
        graph_doc: documentation of the graph.
        values: inputs and outputs of the graph, by name.
        opset: its version of the standard operators; 0 for a graph that was made here.
    """

    model: onnx.ModelProto = field(default_factory=onnx.ModelProto)
    graph_doc: str = ""
    values: dict[str, onnx.ValueInfoProto] = field(default_factory=dict)
    opset: int = 0

    @staticmethod
    def of(model: onnx.ModelProto) -> Origin:
        """What ``model`` says."""
        fields = onnx.ModelProto(
            producer_name=model.producer_name, producer_version=model.producer_version, domain=model.domain,
            model_version=model.model_version,
            doc_string=model.doc_string, metadata_props=model.metadata_props,
        )  # fmt: skip
        values = {}
        for value in (*model.graph.input, *model.graph.output):
            values[value.name] = onnx.ValueInfoProto.FromString(value.SerializeToString())
        opset = max((entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), default=0)
        return Origin(fields, model.graph.doc_string, values, opset)


def origin_of(graph: Graph) -> Origin:
    """Where ``graph`` comes from; nothing for a graph that was made here."""
    found = graph.__dict__.get(ORIGIN)
    return found if isinstance(found, Origin) else Origin()


def restore(model: onnx.ModelProto, graph: Graph, producer: tuple[str, str]) -> None:
    """Let ``model`` say what the file of ``graph`` said; ``producer`` where that named none."""
    origin = origin_of(graph)
    source = origin.model
    named = bool(source.producer_name)
    model.producer_name, model.producer_version = (source.producer_name, source.producer_version) if named else producer
    model.domain, model.model_version, model.doc_string = source.domain, source.model_version, source.doc_string
    model.graph.doc_string = origin.graph_doc
    onnx.helper.set_model_props(
        model, {entry.key: entry.value for entry in sorted(source.metadata_props, key=lambda entry: entry.key)}
    )
    for value in (*model.graph.input, *model.graph.output):
        _restore_value(value, origin.values.get(value.name))
    restore_sequences(model.graph, graph)


def _restore_value(value: onnx.ValueInfoProto, declared: onnx.ValueInfoProto | None) -> None:
    """The declared documentation, and the declared sizes where both say how many dimensions there are."""
    if declared is None:
        return
    value.doc_string = declared.doc_string
    ours, theirs = value.type.tensor_type, declared.type.tensor_type
    if ours.elem_type != theirs.elem_type or not theirs.HasField("shape"):
        return
    if ours.HasField("shape") and len(ours.shape.dim) != len(theirs.shape.dim):
        return
    known = list(ours.shape.dim)
    ours.shape.CopyFrom(theirs.shape)
    for mine, dim in zip(known, ours.shape.dim, strict=False):
        if dim.WhichOneof("value") is None:
            dim.CopyFrom(mine)


def restore_sequences(proto: onnx.GraphProto, graph: Graph) -> None:
    """Give outputs that are sequences or maps their declared types, which graphsurgeon does not know."""
    declared = origin_of(graph).values
    for output in proto.output:
        known = declared.get(output.name)
        if known is not None and known.type.WhichOneof("value") != "tensor_type":
            output.CopyFrom(known)
