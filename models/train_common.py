"""What the three training scripts share: the loop, the export to ONNX, and the record of what was made.

Needs torch and onnxscript, which nothing else in the project does::

    pip install torch==2.13.0 onnxscript==0.7.2 onnx onnxruntime
    python -m models.train_digits DATA

One thread and fixed seeds: on the same machine the same script gives the same file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnxscript import optimizer
from torch import Tensor, nn

from models.data import Split

HOME = Path(__file__).parent
BATCH = 64
CALIBRATION_SAMPLES = 128
TEST_SAMPLES = 500


@dataclass(frozen=True)
class Card:
    """What the manifest says of a model besides its files."""

    name: str
    task: str
    architecture: str
    data: str
    input: str
    output: str = "logits"


def seed() -> None:
    """Fix all that is random, before a network is made."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def fit(
    network: nn.Module,
    split: Split,
    epochs: int,
    rate: float,
    augment: Callable[[Tensor], Tensor] = lambda batch: batch,
) -> None:
    """Train with AdamW under a one-cycle schedule."""
    inputs, labels = torch.from_numpy(split.inputs), torch.from_numpy(split.labels)
    steps = len(labels) // BATCH
    descent = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(descent, rate, total_steps=epochs * steps)
    network.train()
    for epoch in range(epochs):
        order = torch.randperm(len(labels))[: steps * BATCH].reshape(steps, BATCH)
        total = 0.0
        for chosen in order:
            loss = nn.functional.cross_entropy(network(augment(inputs[chosen])), labels[chosen], label_smoothing=0.05)
            descent.zero_grad()
            loss.backward()
            descent.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs}: loss {total / steps:.4f}", flush=True)
    network.eval()


def publish(card: Card, network: nn.Module, train: Split, test: Split) -> None:
    """Write the folder of the model: the graph, calibration feeds, test feeds and labels, and its entry in the
    manifest.
    """
    folder = HOME / card.name
    folder.mkdir(exist_ok=True)
    export(card, network, torch.from_numpy(train.inputs[:2]), folder / "model.onnx")
    rng = np.random.default_rng(0)
    calibration = rng.choice(len(train.labels), CALIBRATION_SAMPLES, replace=False)
    chosen = np.linspace(0, len(test.labels) - 1, TEST_SAMPLES).round().astype(int)
    np.savez_compressed(folder / "calibration.npz", **{card.input: train.inputs[np.sort(calibration)]})
    np.savez_compressed(folder / "test.npz", **{card.input: test.inputs[chosen]})
    np.save(folder / "labels.npy", test.labels[chosen].astype(np.uint8))
    logits = _run(folder / "model.onnx", card, test.inputs[chosen])
    with torch.no_grad():
        np.testing.assert_allclose(logits, network(torch.from_numpy(test.inputs[chosen])).numpy(), atol=1e-4)
    accuracy = float((logits.argmax(1) == test.labels[chosen]).mean())
    print(f"{card.name}: accuracy {accuracy:.3f} on {TEST_SAMPLES} test samples")
    _record(card, folder, accuracy)


def export(card: Card, network: nn.Module, example: Tensor, path: Path) -> None:
    """Write the network as ONNX with a symbolic batch size; constants are folded, BatchNormalization stays as it is."""
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        network, (example,), dynamo=True, optimize=False, opset_version=18, verbose=False,
        input_names=[card.input], output_names=[card.output], dynamic_shapes=({0: batch},),
    )  # fmt: skip
    if program is None:
        raise RuntimeError(f"{card.name}: the exporter returned no program")
    optimizer.fold_constants(program.model)
    optimizer.remove_unused_nodes(program.model)
    model = program.model_proto
    _forget_the_machine(model)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _forget_the_machine(model: onnx.ModelProto) -> None:
    """The exporter notes stack traces and paths everywhere: they say nothing to others and differ from place to
    place.
    """
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for record in (
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
        *model.graph.initializer,
    ):
        del record.metadata_props[:]
        record.doc_string = ""


def _run(path: Path, card: Card, inputs: NDArray[np.generic]) -> NDArray[np.float32]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run([card.output], {card.input: inputs})[0])


def _record(card: Card, folder: Path, accuracy: float) -> None:
    path = HOME / "manifest.json"
    manifest = json.loads(path.read_text()) if path.exists() else {}
    manifest[card.name] = {
        "task": card.task,
        "architecture": card.architecture,
        "data": card.data,
        "licence": "Apache-2.0",
        "trained_by": f"models/train_{card.name}.py, torch {torch.__version__.partition('+')[0]}",
        "input": card.input,
        "output": card.output,
        "float_accuracy": accuracy,
        "sha256": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())},
    }
    path.write_text(json.dumps(dict(sorted(manifest.items())), indent=2) + "\n")
