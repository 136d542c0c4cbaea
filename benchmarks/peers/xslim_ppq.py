"""xslim, built on PPQ: int8 with its fine-tuning; see `benchmarks.accuracy_peers`.

python xslim_ppq.py MODEL CALIBRATION.npz TEST.npz ANSWERS.npz LEVEL

LEVEL 0 … 3 is its ``finetune_level``; from 2 on weights are learned layer by layer.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import xslim
from feeds import read_feeds, write_answers
from opset import recent_path


def inputs_in_files(data, folder):
    """The feeds as files and lists of files; the settings that name them."""
    settings = []
    for number, name in enumerate(data[0]):
        paths = [folder / f"{number}_{index}.npy" for index in range(len(data))]
        for path, feed in zip(paths, data, strict=True):
            np.save(path, feed[name])
        (folder / f"{number}.txt").write_text("\n".join(str(path) for path in paths))
        settings.append({
            "input_name": name, "input_shape": list(data[0][name].shape), "dtype": str(data[0][name].dtype),
            "file_type": "npy", "data_list_path": str(folder / f"{number}.txt"),
        })  # fmt: skip
    return settings


def main(model, calibration, test, answers, level):
    """Quantize and run."""
    data = read_feeds(calibration)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "result").mkdir()
        network, inputs, start = recent_path(model, folder), inputs_in_files(data, folder), time.perf_counter()
        settings = {
            "model_parameters": {"onnx_model": network, "output_prefix": "out", "working_dir": str(folder / "result")},
            "calibration_parameters": {"calibration_step": len(data), "input_parameters": inputs},
            "quantization_parameters": {"finetune_level": level, "analysis_enable": False},
        }
        xslim.quantize_onnx_model(settings)
        seconds, result = time.perf_counter() - start, next((folder / "result").glob("*.onnx"))
        write_answers(answers, ort.InferenceSession(result, providers=["CPUExecutionProvider"]), test, seconds, result)


if __name__ == "__main__":
    main(*sys.argv[1:5], int(sys.argv[5]))
