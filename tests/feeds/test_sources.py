from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from qcompiler.errors import DataError
from qcompiler.feeds.sources import SYNTHETIC_WARNING, open_source, synthetic_source
from qcompiler.graph.ir import Graph
from qcompiler.pass_base import Context
from tests.helpers.graphs import graph_of


def two_inputs() -> Graph:
    return graph_of(
        "g (float[N, 4] x, int64[N] ids) => (float[N, 4] y) { f = Cast <to = 1> (ids)  u = Unsqueeze(f, a)  y = Add(x, "
        "u) }",
        a=np.array([1]),
    )


def one_input() -> Graph:
    return graph_of("g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }")


def feed(n: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((n, 4)).astype(np.float32), "ids": np.arange(n)}


def same(source, expected) -> bool:
    got = list(source)
    return len(got) == len(expected) and all(
        np.array_equal(a[k], b[k]) for a, b in zip(got, expected, strict=True) for k in b
    )


def test_a_list_is_read_again_and_again():
    feeds = [feed(2, 1), feed(5, 2)]  # of different shapes
    source = open_source(feeds, two_inputs())
    assert source.length == 2
    assert same(source, feeds)
    assert same(source, feeds)


def test_a_generator_is_spooled_and_read_again():
    feeds = [feed(2, 1), feed(3, 2)]
    source = open_source((item for item in feeds), two_inputs())
    assert source.length == 2
    assert same(source, feeds)
    assert same(source, feeds)


def test_one_dict_is_one_feed():
    assert same(open_source(feed(), two_inputs()), [feed()])


def test_npz_is_one_batch(tmp_path: Path):
    np.savez(tmp_path / "a.npz", **feed())
    assert same(open_source(tmp_path / "a.npz", two_inputs()), [feed()])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_with_a_leading_sample_axis_is_read_sample_by_sample(tmp_path: Path, save):
    feeds = [feed(2, seed) for seed in range(3)]
    save(
        tmp_path / "a.npz",
        x=np.stack([f["x"] for f in feeds]),
        ids=np.asfortranarray(np.stack([f["ids"] for f in feeds])),
    )
    assert same(open_source(str(tmp_path / "a.npz"), two_inputs()), feeds)


def test_folder_of_npz_in_the_order_of_names(tmp_path: Path):
    feeds = [feed(2, seed) for seed in range(3)]
    for index in (2, 0, 1):
        np.savez(tmp_path / f"{index}.npz", **feeds[index])
    (tmp_path / "notes.txt").write_text("not a feed")
    assert same(open_source(tmp_path, two_inputs()), feeds)


def test_npy_files_serve_a_model_of_one_input(tmp_path: Path):
    feeds = [{"x": feed(2, seed)["x"]} for seed in range(3)]
    np.save(tmp_path / "a.npy", np.stack([f["x"] for f in feeds[:2]]))
    np.save(tmp_path / "b.npy", feeds[2]["x"])
    assert same(open_source(tmp_path, one_input()), feeds)


def test_module_and_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code = (
        "import numpy as np\ndef feeds():\n    for i in range(3):\n        yield {'x': np.full((2, 4), i, "
        "np.float32)}\n"
    )
    (tmp_path / "module_feeds.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    source = open_source("module_feeds:feeds", one_input())
    assert [f["x"][0, 0] for f in source] == [0, 1, 2]
    assert [f["x"][0, 0] for f in source] == [0, 1, 2]
    assert sys.path == path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": None}, r"feed 1: input 'x' is missing; expected float32 \[\?, 4\]"),
        (
            {"z": np.zeros(1)},
            r"feed 1: 'z' is no input of the model; expected 'x' \(float32 \[\?, 4\]\), 'ids' \(int64 \[\?\]\)",
        ),
        ({"x": np.zeros((2, 4))}, r"feed 1: input 'x' is float64; expected float32"),
        ({"x": np.zeros((2, 5), np.float32)}, r"feed 1: input 'x' has shape \[2, 5\]; expected float32 \[\?, 4\]"),
        ({"x": np.zeros((4,), np.float32)}, r"feed 1: input 'x' has shape \[4\]"),
        ({"x": np.full((2, 4), np.nan, np.float32)}, r"feed 1: input 'x' holds NaN or infinity"),
        ({"x": np.full((2, 4), np.inf, np.float32)}, r"feed 1: input 'x' holds NaN or infinity"),
    ],
)
def test_a_wrong_feed_is_named_in_one_line(change, message):
    wrong = {name: value for name, value in {**feed(), **change}.items() if value is not None}
    with pytest.raises(DataError, match=message) as caught:
        list(open_source([feed(), wrong], two_inputs()))
    assert "\n" not in str(caught.value)


def test_wrong_feeds_of_a_generator_are_found_when_it_is_spooled():
    with pytest.raises(DataError, match="feed 0: is a list; expected a dict"):
        open_source(iter([[1, 2]]), two_inputs())


@pytest.mark.parametrize("empty", [[], iter([])])
def test_an_empty_set_is_refused(empty):
    with pytest.raises(DataError, match="the calibration set is empty"):
        list(open_source(empty, two_inputs()))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.npz", "no such file or folder"),
        ("no.such.module:feeds", "cannot be imported"),
        ("math:no_such_function", "'math' has no function"),
        ("math:pi", "is not a function that yields feeds"),
        ("text.txt", "not a .npz or .npy file"),
        ("broken.npz", "cannot be read"),
        ("empty", "holds no .npz or .npy file"),
        ("uneven.npz", "the same leading sample axis"),
        ("objects.npz", "cannot be read"),
    ],
)
def test_a_wrong_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("")
    Path("broken.npz").write_bytes(b"PK no archive")
    Path("empty").mkdir()
    np.savez("uneven.npz", x=np.zeros((3, 2, 4), np.float32), ids=np.zeros((2, 2), np.int64))
    np.savez("objects.npz", x=np.array([{}], object), ids=np.zeros(2, np.int64))
    with pytest.raises(DataError, match=message):
        list(open_source(name, two_inputs()))


def test_a_function_must_return_feeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "bad_feeds.py").write_text("def feeds():\n    return 3\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="returned an object of type int"):
        list(open_source("bad_feeds:feeds", one_input()))


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        (
            "late_error",
            "def feeds():\n    yield {}['x']\n",
            r"late_error:feeds: KeyError: 'x' \(late_error.py, line 2\)",
        ),
        (
            "needs_more",
            "def feeds(path):\n    yield path\n",
            r"needs_more:feeds: TypeError: feeds\(\) missing 1 required",
        ),
        ("no_module", "1 / 0\n", r"cannot be imported: ZeroDivisionError: division by zero \(no_module.py, line 1\)"),
    ],
)
def test_an_error_of_the_users_function_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, body: str, message: str
):
    (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        list(open_source(f"{name}:feeds", one_input()))
    assert "\n" not in str(caught.value)


def test_the_byte_order_of_a_file_does_not_matter(tmp_path: Path):
    np.savez(tmp_path / "a.npz", x=np.arange(8, dtype=">f4").reshape(2, 4))
    (feed,) = open_source(tmp_path / "a.npz", one_input())
    assert feed["x"].dtype == np.float32
    assert feed["x"][1, 3] == 7


def test_npy_needs_a_model_of_one_input(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.zeros((2, 4), np.float32))
    with pytest.raises(DataError, match="the model has 2 inputs"):
        list(open_source(tmp_path / "a.npy", two_inputs()))


def test_truncated_samples_are_refused(tmp_path: Path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((8, 2, 4), np.float32), ids=np.zeros((8, 2), np.int64))
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DataError, match="cannot be read"):
        list(open_source(path, two_inputs()))


def test_synthetic_feeds_warn_once_and_repeat():
    graph, ctx = two_inputs(), Context(seed=3)
    source = synthetic_source(graph, ctx)
    synthetic_source(graph, ctx)
    assert ctx.report.warnings == [SYNTHETIC_WARNING]
    assert "--calib" in SYNTHETIC_WARNING
    first, second = list(source), list(source)
    assert same(source, first)
    assert len(first) == len(second) == source.length
    other = list(synthetic_source(graph, Context(seed=4)))
    assert not np.array_equal(first[0]["x"], other[0]["x"])
