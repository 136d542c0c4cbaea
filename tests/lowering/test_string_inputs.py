from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from qcompiler.api import Options, compile
from qcompiler.errors import UnsupportedError
from qcompiler.graph.runner import Runner
from qcompiler.runtime import Program, Session
from qcompiler.runtime.errors import FeedError

WORDS = ["one", "two", "drei", "vier", "ü"]


def tokens_model(attributes: str, body: str = "e = Gather(table, ids)  p = ReduceMean(e, one)") -> onnx.ModelProto:
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 18, "ai.onnx.ml" : 4]>
        g (string[N, L] words) => (float[N, 1, 4] y) {{
            ids = ai.onnx.ml.LabelEncoder <{attributes}> (words)  {body}  y = MatMul(p, w) }}""")
    rng = np.random.default_rng(0)
    constants = {
        "table": rng.standard_normal((9, 6)).astype(np.float32), "w": rng.standard_normal((6, 4)).astype(np.float32),
        "one": np.array([1]),
    }  # fmt: skip
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, key) for key, value in constants.items())
    return model


def feeds(seed: int, count: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"words": rng.choice([*WORDS, "unknown"], (2, 3 + seed % 4)).astype(object)} for _ in range(count)]


def quoted(words: list[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


@pytest.mark.parametrize(
    "attributes",
    [
        f"keys_strings = [{quoted(WORDS)}], values_int64s = [5, 1, 2, 7, 8], default_int64 = 3",
        f"keys_strings = [{quoted(WORDS)}], values_tensor = int64[5] {{5, 1, 2, 7, 8}}, default_tensor = int64[1]{{3}}",
    ],
)
def test_strings_become_numbers_at_the_border(attributes: str, tmp_path: Path) -> None:
    model = tokens_model(attributes)
    compile(model, data=feeds(1, 16), options=Options(level=0), for_onnx=False).save(tmp_path / "net.qprog")
    session, float_model = Session(Program.load(tmp_path / "net.qprog")), Runner(model)
    for feed in feeds(2, 8):
        expected = float_model.run(feed)["y"]
        for words in (feed["words"], feed["words"].astype(str)):
            got = session.run({"words": words})["y"]
            assert np.square(expected - got).sum() < 1e-2 * np.square(expected).sum()
    with pytest.raises(FeedError, match="must hold strings"):
        session.run({"words": np.zeros((2, 3), np.int64)})


def test_numbers_of_float_stay_outside() -> None:
    model = tokens_model(
        f"keys_strings = [{quoted(WORDS)}], values_floats = [0.5, 1.0, 2.0, 3.0, 4.0]", "u = Unsqueeze(ids, one)  "
        "r = ReduceMean(u)  b = Add(r, table)  s = Slice(b, zero, one)  p = Unsqueeze(s, zero)",
    )  # fmt: skip
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "zero"))
    with pytest.raises(UnsupportedError, match="LabelEncoder"):
        compile(model, data=feeds(1, 4), options=Options(level=0), for_onnx=False).program  # noqa: B018
