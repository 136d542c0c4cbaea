"""A decoder with a cache: it continues a text character by character and never reads a character twice.

docs/tutorials/decoder.md goes through it step by step.

    python -m examples.tutorials.decoder make build/decoder
    python -m examples.tutorials.decoder score build/decoder/model.onnx build/decoder/out.qprog
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from examples.tutorials.shared import Arrays, Run, model_of, open_model, train_layers

TEXT = (Path(__file__).parents[2] / "LICENSE").read_text(encoding="utf8")
LETTERS = sorted(set(TEXT))
START = "Unless required by"
HEADS, HEAD, WIDTH, LONGEST, PROMPT = 6, 16, 32, 160, 32
"""Heads and their width; width of an embedding; positions that there are; characters of a prompt."""

BODY = """
    word = Gather(words, input_ids)
    query0 = Gather(queries, position_ids)  query = Transpose <perm = [0, 2, 1, 3]> (query0)
    key0 = Gather(keys, position_ids)  key1 = Unsqueeze(key0, one)
    value0 = MatMul(word, read)  value1 = Reshape(value0, by_head)  value2 = Transpose <perm = [0, 2, 1, 3]> (value1)
    present_key = Concat <axis = 2> (past_key, key1)  present_value = Concat <axis = 2> (past_value, value2)
    turned = Transpose <perm = [0, 1, 3, 2]> (present_key)  match = MatMul(query, turned)
    sizes = Shape(present_key)  total0 = Gather(sizes, two)  total = Squeeze(total0)
    columns = Range(zero, total, step)  rows = Unsqueeze(position_ids, last)  later = Greater(columns, rows)
    bias0 = Where(later, low, nothing)  bias = Unsqueeze(bias0, one)
    masked = Add(match, bias)  share = Softmax <axis = 3> (masked)
    found = MatMul(share, present_value)  back = Transpose <perm = [0, 2, 1, 3]> (found)  heads = Reshape(back, joined)
    context = Concat <axis = 2> (word, heads)"""
HEAD_OF_IT = """
    inner0 = MatMul(context, w0)  inner = Add(inner0, b0)  kept = Relu(inner)
    outer = MatMul(kept, w1)  logits = Add(outer, b1)"""
INPUTS = f"""(int64[batch, length] input_ids, int64[batch, length] position_ids,
    float[batch, 1, past, {HEAD}] past_key, float[batch, {HEADS}, past, {HEAD}] past_value)"""
CACHE = f"float[batch, 1, total, {HEAD}] present_key, float[batch, {HEADS}, total, {HEAD}] present_value"


def ids_of(text: str) -> np.ndarray:
    """The places of its letters in the alphabet, int64 [length]."""
    return np.array([LETTERS.index(letter) for letter in text])


def train(folder: Path) -> onnx.ModelProto:
    """One attention layer whose heads look 0 to 5 characters back, and two layers that are trained on what they see."""
    rng = np.random.default_rng(0)
    angles = np.outer(np.arange(LONGEST), 3 * 0.02 ** (np.arange(HEAD // 2) / (HEAD // 2 - 1)))
    waves = np.c_[np.cos(angles), np.sin(angles)]
    back = np.maximum(np.arange(LONGEST)[:, None] - np.arange(HEADS), 0)  # where each head looks, from each position
    constants = {
        "words": rng.standard_normal((len(LETTERS), WIDTH)).astype(np.float32),
        "queries": np.float32(8 * waves[back]),
        "keys": np.float32(waves),
        "read": np.float32(rng.standard_normal((WIDTH, HEADS * HEAD)) / np.sqrt(WIDTH)),
        "by_head": np.array([0, 0, HEADS, HEAD]),
        "joined": np.array([0, 0, HEADS * HEAD]),
        "one": np.array([1]),
        "two": np.array([2]),
        "last": np.array([-1]),
        "zero": np.array(0),
        "step": np.array(1),
        "low": np.float32(-1e4),
        "nothing": np.float32(0),
    }
    signature = f"context {INPUTS} => (float[batch, length, {WIDTH + HEADS * HEAD}] context)"
    onnx.save(model_of(signature, BODY, constants), folder / "context.onnx")
    texts = np.lib.stride_tricks.sliding_window_view(ids_of(TEXT), LONGEST + 1)[::40]
    seen = open_model(folder / "context.onnx")(beginning(texts[:, :-1]))["context"]
    inputs, wanted = seen.reshape(-1, seen.shape[-1]), texts[:, 1:].reshape(-1)

    def slopes(rows: np.ndarray, answers: np.ndarray) -> np.ndarray:
        likely = np.exp(answers - answers.max(1, keepdims=True))
        likely /= likely.sum(1, keepdims=True)
        likely[np.arange(len(rows)), wanted[rows]] -= 1
        return likely

    trained = train_layers(inputs, slopes, 128, len(LETTERS), 2500)
    constants |= dict(zip(("w0", "b0", "w1", "b1"), trained, strict=True))
    signature = f"decoder {INPUTS} => (float[batch, length, {len(LETTERS)}] logits, {CACHE})"
    return model_of(signature, BODY + HEAD_OF_IT, constants)


def beginning(ids: np.ndarray) -> Arrays:
    """Inputs for the ids [batch, length] of a prompt: nothing is in the cache yet."""
    batch, length = ids.shape
    return {
        "input_ids": ids,
        "position_ids": np.tile(np.arange(length), (batch, 1)),
        "past_key": np.zeros((batch, 1, 0, HEAD), np.float32),
        "past_value": np.zeros((batch, HEADS, 0, HEAD), np.float32),
    }


def behind(inputs: Arrays, outputs: Arrays, ids: np.ndarray) -> Arrays:
    """Inputs of the next step: the ids [batch] that come next, and what is now in the cache."""
    return {
        "input_ids": ids[:, None],
        "position_ids": inputs["position_ids"][:, -1:] + 1,
        "past_key": outputs["present_key"],
        "past_value": outputs["present_value"],
    }


def write(run: Run, prompt: np.ndarray, count: int) -> Iterator[tuple[Arrays, np.ndarray]]:
    """The inputs of each step and the likeliest next ids [batch], which the step behind it is given."""
    inputs = beginning(prompt)
    for _ in range(count):
        outputs = run(inputs)
        ids = outputs["logits"][:, -1].argmax(-1)
        yield inputs, ids
        inputs = behind(inputs, outputs, ids)


def pieces(seed: int, count: int, length: int) -> np.ndarray:
    """Ids [count, length] of places in the text."""
    starts = np.random.default_rng(seed).integers(0, len(TEXT) - length, count)
    return np.array([ids_of(TEXT[start : start + length]) for start in starts])


def feeds(seed: int = 1) -> Iterator[Arrays]:
    """Calibration feeds: 16 prompts, and behind each the 3rd and the 60th step with the cache of the float model."""
    run = open_model("build/decoder/model.onnx")
    for prompt in pieces(seed, 16, PROMPT):
        steps = [inputs for inputs, _ in write(run, prompt[None], 61)]
        yield from (steps[place] for place in (0, 3, 60))


def test_feeds() -> Iterator[Arrays]:
    """The same of other places in the text, for qdiff and qrun."""
    return feeds(seed=3)


def prompt_feeds() -> Iterator[Arrays]:
    """What not to do: prompts alone, so that no cache was ever seen."""
    for prompt in pieces(1, 48, PROMPT):
        yield beginning(prompt[None])


def score(run: Run) -> float:
    """Share of the next characters that it foretells, step by step with the cache, in 32 texts behind a prompt."""
    texts = pieces(2, 32, 128)
    inputs, right = beginning(texts[:, :PROMPT]), []
    for ids in texts[:, PROMPT:].T:
        outputs = run(inputs)
        right.append(outputs["logits"][:, -1].argmax(-1) == ids)
        inputs = behind(inputs, outputs, ids)
    return float(np.mean(right))


def main(action: str, *paths: str) -> None:
    """Make the model in a folder, score model files, or let them write."""
    if action == "make":
        Path(paths[0]).mkdir(parents=True, exist_ok=True)
        onnx.save(train(Path(paths[0])), Path(paths[0]) / "model.onnx")
    for path in paths if action == "score" else ():
        print(f"{path}: {score(open_model(path)):.3f} of the characters foretold")
    for path in paths if action == "write" else ():
        ids = [int(each[0]) for _, each in write(open_model(path), ids_of(START)[None], 48)]
        print(f"{path}: {START}{''.join(LETTERS[each] for each in ids)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
