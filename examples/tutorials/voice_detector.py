"""A recurrent voice detector that hears 16 ms at a time and is given its own state back.

docs/tutorials/voice-detector.md goes through it step by step.

    python -m examples.tutorials.voice_detector make build/voice
    python -m examples.tutorials.voice_detector score build/voice/model.onnx build/voice/out.qprog
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from examples.tutorials.shared import Arrays, Run, model_of, open_model, train_layers

RATE, CHUNK, BANDS, UNITS = 16000, 256, 24, 64
"""Samples of a second and of a chunk; bands of the filter bank; units of the recurrent layer."""


def speech(seed: int, streams: int, chunks: int) -> tuple[np.ndarray, np.ndarray]:
    """Sound [streams, chunks, 256] with voiced passages and pauses, and where there is voice [streams, chunks].

    Voice is harmonics of a moving pitch under moving formants; noise has a level of its own in each stream.
    """
    rng = np.random.default_rng(seed)
    sound = np.zeros((streams, chunks * CHUNK))
    voiced = np.zeros((streams, chunks), bool)
    for stream in range(streams):
        at = 0
        while at < chunks:
            length = int(rng.integers(10, 60))
            voiced[stream, at : at + length] = rng.random() < 0.5
            at += length
        time = np.arange(chunks * CHUNK) / RATE
        pitch = rng.uniform(90, 250) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(1, 4) * time))
        phase = 2 * np.pi * np.cumsum(pitch) / RATE
        formant = rng.uniform(500, 1500) * (1 + 0.3 * np.sin(2 * np.pi * rng.uniform(0.5, 3) * time))
        voice = sum(np.exp(-(((k * pitch - formant) / 600) ** 2)) * np.sin(k * phase) for k in range(1, 16))
        loud = np.repeat(voiced[stream], CHUNK) * 10 ** rng.uniform(-2.2, -0.7)
        sound[stream] = loud * voice + rng.normal(0, 10 ** rng.uniform(-3, -1.5), len(time))
    return sound.reshape(streams, chunks, CHUNK).astype(np.float32), voiced


FRONT = """
    waves = MatMul(chunk, filters)  squares = Mul(waves, waves)  bands = MatMul(squares, pairs)
    audible = Add(bands, floor)  decades = Log(audible)  level = Sub(decades, usual)  spread = Mul(level, gain)
    steps = Unsqueeze(spread, first)
    _, state_out = GRU <hidden_size = 64, linear_before_reset = 1> (steps, read, recur, bias, , state)
    last = Squeeze(state_out, first)"""
HEAD = """
    inner = Gemm(last, w0, b0)  kept = Relu(inner)  score = Gemm(kept, w1, b1)  speech = Sigmoid(score)"""
INPUTS = "(float[batch, 256] chunk, float[1, batch, 64] state)"


def train(folder: Path) -> onnx.ModelProto:
    """A filter bank, a recurrent layer of random weights that remembers, and two trained layers that listen to it."""
    rng = np.random.default_rng(0)
    place = np.arange(CHUNK)
    centres = 80 * (3500 / 80) ** (np.arange(BANDS) / (BANDS - 1))
    angles = 2 * np.pi * np.outer(place, centres) / RATE
    window = np.hanning(CHUNK)[:, None]
    constants = {
        "filters": np.float32(np.c_[window * np.cos(angles), window * np.sin(angles)]),
        "pairs": np.float32(np.r_[np.eye(BANDS), np.eye(BANDS)]),
        "floor": np.float32(1e-5),
        "first": np.array([0]),
        "usual": np.float32(-3),
        "gain": np.float32(0.25),
        "read": rng.normal(0, 0.5 / np.sqrt(BANDS), (1, 3 * UNITS, BANDS)).astype(np.float32),
        "recur": rng.normal(0, 0.5 / np.sqrt(UNITS), (1, 3 * UNITS, UNITS)).astype(np.float32),
        "bias": np.zeros((1, 6 * UNITS), np.float32),
    }
    constants["bias"][0, :UNITS] = np.linspace(-2, 3, UNITS)  # of the update gate: from forgetful to slow
    states = f"states {INPUTS} => (float[1, batch, 64] state_out)"
    onnx.save(model_of(states, FRONT, constants), folder / "states.onnx")
    sound, voiced = speech(1, streams=32, chunks=400)
    told = [each["state_out"][0] for each in listen(open_model(folder / "states.onnx"), sound)]
    inputs, wanted = np.concatenate(told), voiced.T.reshape(-1, 1)

    def slopes(rows: np.ndarray, answers: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-answers)) - wanted[rows]

    constants |= dict(zip(("w0", "b0", "w1", "b1"), train_layers(inputs, slopes, 32, 1, 3000), strict=True))
    signature = f"voice {INPUTS} => (float[batch, 1] speech, float[1, batch, 64] state_out)"
    return model_of(signature, FRONT + HEAD, constants)


def listen(run: Run, sound: np.ndarray) -> Iterator[Arrays]:
    """Chunk by chunk, the state fed back: for each chunk its inputs and outputs."""
    state = np.zeros((1, len(sound), UNITS), np.float32)
    for chunk in sound.transpose(1, 0, 2):
        inputs = {"chunk": chunk, "state": state}
        outputs = run(inputs)
        yield inputs | outputs
        state = outputs["state_out"]


def feeds(seed: int = 2) -> Iterator[Arrays]:
    """Calibration feeds: every 5th chunk of 4 streams, with the states that the float model has come to there."""
    sound, _ = speech(seed, streams=4, chunks=320)
    for place, each in enumerate(listen(open_model("build/voice/model.onnx"), sound)):
        if place % 5 == 4:
            yield {"chunk": each["chunk"], "state": each["state"]}


def test_feeds() -> Iterator[Arrays]:
    """The same of other streams, for qdiff and qrun."""
    return feeds(seed=3)


def silent_feeds() -> Iterator[Arrays]:
    """What not to do: the same chunks, each with the state of a beginning."""
    for feed in feeds():
        yield {"chunk": feed["chunk"], "state": np.zeros_like(feed["state"])}


def score(run: Run) -> float:
    """Share of 4 times 600 chunks for which it says rightly whether there is voice, the state fed back."""
    sound, voiced = speech(3, streams=4, chunks=600)
    told = np.stack([each["speech"][:, 0] for each in listen(run, sound)], 1)
    return float(((told > 0.5) == voiced).mean())


def main(action: str, *paths: str) -> None:
    """Make the model in a folder, or score model files."""
    if action == "make":
        Path(paths[0]).mkdir(parents=True, exist_ok=True)
        onnx.save(train(Path(paths[0])), Path(paths[0]) / "model.onnx")
    for path in paths if action == "score" else ():
        print(f"{path}: {score(open_model(path)):.3f} of the chunks right")


if __name__ == "__main__":
    main(*sys.argv[1:])
