"""A sentence encoder with padding and a mask, cut out of the network of models/languages.

docs/tutorials/sentence-encoder.md goes through it step by step.

    python -m examples.tutorials.sentence_encoder make build/encoder
    python -m examples.tutorials.sentence_encoder score build/encoder/model.onnx build/encoder/out.onnx
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from examples.tutorials.shared import Arrays, Run, open_model

DATA = Path(__file__).parents[2] / "models" / "languages"


def encoder() -> onnx.ModelProto:
    """Ids and a mask, [batch, 64] each, to embeddings [batch, 64] of length 1.

    The network's mask becomes an input; the mean of its states, without the classifier behind it, its output.
    """
    model = onnx.load(DATA / "model.onnx")
    graph = model.graph
    shape = ["batch", 64]
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] == "ne":  # of Not(Equal(characters, 0))
            node.input[0] = "attention_mask"
        for place, name in enumerate(node.input):
            node.input[place] = "input_ids" if name == "characters" else name
    mean = graph.node.pop().input[0]  # of the classifier
    graph.node.append(onnx.helper.make_node("ReduceL2", [mean, "axis"], ["length"], keepdims=1))
    graph.node.append(onnx.helper.make_node("Div", [mean, "length"], ["sentence"]))
    for unused in [each for each in graph.initializer if each.name.startswith("head.")]:
        graph.initializer.remove(unused)
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1]), "axis"))
    integers, floats = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT
    inputs = [onnx.helper.make_tensor_value_info(name, integers, shape) for name in ("input_ids", "attention_mask")]
    del graph.input[:], graph.output[:]
    graph.input.extend(inputs)
    graph.output.append(onnx.helper.make_tensor_value_info("sentence", floats, shape))
    return model


def texts(name: str) -> np.ndarray:
    """Characters int64 [N, 64] of the calibration or the test set; 0 is padding."""
    with np.load(DATA / f"{name}.npz") as arrays:
        return arrays["characters"]


def batch_of(characters: np.ndarray) -> Arrays:
    """What a tokenizer gives: ids, and a mask that is 1 where they are no padding."""
    return {"input_ids": characters, "attention_mask": (characters != 0).astype(np.int64)}


def feeds() -> Iterator[Arrays]:
    """Calibration feeds: 32 batches of 4 texts with the padding that they have."""
    characters = texts("calibration")
    for start in range(0, len(characters), 4):
        yield batch_of(characters[start : start + 4])


def test_feeds() -> Iterator[Arrays]:
    """The test texts, for qdiff and qrun: 20 batches of 25."""
    for characters in np.split(texts("test"), 20):
        yield batch_of(characters)


def full_feeds() -> Iterator[Arrays]:
    """What not to do: the 27 longest of these texts, cut to 58 characters and none of them padded."""
    characters = texts("calibration")
    for text in characters[(characters != 0).sum(1) >= 58]:
        yield batch_of(np.resize(text[:58], (1, 64)))


def score(run: Run) -> float:
    """Share of 500 test texts whose nearest neighbour among the others has the same language."""
    embeddings = run(batch_of(texts("test")))["sentence"]
    similar = embeddings @ embeddings.T
    np.fill_diagonal(similar, -1)
    labels = np.load(DATA / "labels.npy")
    return float((labels[similar.argmax(1)] == labels).mean())


def main(action: str, *paths: str) -> None:
    """Make the model in a folder, or score model files."""
    if action == "make":
        Path(paths[0]).mkdir(parents=True, exist_ok=True)
        onnx.save(encoder(), Path(paths[0]) / "model.onnx")
    for path in paths if action == "score" else ():
        print(f"{path}: nearest neighbour of the same language {score(open_model(path)):.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
