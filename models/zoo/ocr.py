"""PP-OCR text recognition and its angle classifier on rendered lines of text. The models come as ONNX in a Python
package.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from models.fetch import FetchError, pip_package
from models.task import Answers, Feed, Task, accuracy, edit_distance

HEIGHT = 48
RECOGNITION_WIDTH, CLASSIFIER_WIDTH = 640, 192
RECOGNITION_LINES, CLASSIFIER_LINES, CALIBRATION_LINES = 80, 100, 32
FONTS = Path("/usr/share/fonts")
NO_TEXT_FONTS = ("Symbol", "Dingbat", "Emoji", "Math", "Condensed")

Line = tuple[str, Image.Image]
"""What is written, and its picture."""


def _model(folder: Path, name: str) -> Path:
    return pip_package("rapidocr-onnxruntime==1.4.4", folder / "packages") / "rapidocr_onnxruntime/models" / name


def build_recognition(folder: Path) -> Path:
    """The text recognition model: ``x`` [N, 3, 48, W] to probabilities [N, W/8, 6625]."""
    return _model(folder, "ch_PP-OCRv4_rec_infer.onnx")


def build_classifier(folder: Path) -> Path:
    """The angle classifier: ``x`` [N, 3, 48, 192] to probabilities of 0 and 180 degrees [N, 2]."""
    return _model(folder, "ch_ppocr_mobile_v2.0_cls_infer.onnx")


def recognition_task(folder: Path) -> Task:
    """Score how many of 80 lines are read without a fault, and the share of wrong characters."""
    model = build_recognition(folder)
    metadata = {item.key: item.value for item in onnx.load(model).metadata_props}
    characters = ["", *metadata["character"].splitlines(), " "]
    lines = render(folder, 0, RECOGNITION_LINES)
    texts = [text for text, _ in lines]

    def score(answers: Answers) -> dict[str, float]:
        read = [_decode(answer[0].argmax(1), characters) for answer in answers]
        wrong = sum(edit_distance(got, text) for got, text in zip(read, texts, strict=True))
        exact = sum(got == text for got, text in zip(read, texts, strict=True))
        return {"exact": exact / len(texts), "CER": wrong / sum(map(len, texts))}

    return Task(
        "ocr_rec",
        model,
        _feeds(lines, RECOGNITION_WIDTH),
        _feeds(render(folder, 1, CALIBRATION_LINES), RECOGNITION_WIDTH),
        score,
    )


def classifier_task(folder: Path) -> Task:
    """Score how many of 100 lines, every other one upside down, are told apart."""
    lines = _turn_every_other(render(folder, 2, CLASSIFIER_LINES))
    calibration = _turn_every_other(render(folder, 3, CALIBRATION_LINES))
    turned = np.arange(CLASSIFIER_LINES) % 2

    def score(answers: Answers) -> dict[str, float]:
        return {"accuracy": accuracy(answers, turned)}

    return Task(
        "ocr_cls",
        build_classifier(folder),
        _feeds(lines, CLASSIFIER_WIDTH),
        _feeds(calibration, CLASSIFIER_WIDTH),
        score,
    )


def render(folder: Path, seed: int, count: int) -> list[Line]:
    """Lines of three words and often a number, in the fonts of this machine, on noise.

    Raises:
        FetchError: the machine has no fonts.
    """
    fonts = [path for path in sorted(FONTS.rglob("*.ttf")) if not any(word in str(path) for word in NO_TEXT_FONTS)]
    if not fonts:
        raise FetchError(
            f"no TrueType fonts below {FONTS}: install some (such as the package fonts-dejavu) to render lines of text"
        )
    choose, noise = random.Random(seed), np.random.default_rng(seed)
    words = _words(folder)
    return [_render_line(fonts, words, choose, noise) for _ in range(count)]


def _words(folder: Path) -> list[str]:
    source = pip_package("gensim==4.4.0", folder / "packages") / "gensim/test/test_data/pang_lee_polarity.cor"
    text = source.read_text(encoding="latin-1").replace("__label__neg", "").replace("__label__pos", "")
    return [word for word in text.split() if word.isalpha()]


def _render_line(
    fonts: Sequence[Path], words: Sequence[str], choose: random.Random, noise: np.random.Generator
) -> Line:
    text = " ".join(choose.choices(words, k=3))
    text = text.title() if choose.random() < 0.3 else text
    text += f" {choose.randint(10, 99999)}" if choose.random() < 0.5 else ""
    font = ImageFont.truetype(str(choose.choice(fonts)), choose.choice([22, 28, 34]))
    box = font.getbbox(text)
    paper, ink = (tuple(int(value) for value in noise.integers(low, high, 3)) for low, high in ((200, 256), (0, 90)))
    picture = Image.new("RGB", (int(box[2]) + 12, int(box[3]) + 10), paper)
    ImageDraw.Draw(picture).text((6, 4), text, font=font, fill=ink)
    grey = np.asarray(picture, np.float32) + noise.normal(0, 8, (picture.size[1], picture.size[0], 1))
    return text, Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))


def _turn_every_other(lines: Sequence[Line]) -> list[Line]:
    return [(text, picture.rotate(180) if index % 2 else picture) for index, (text, picture) in enumerate(lines)]


def _feeds(lines: Sequence[Line], width: int) -> list[Feed]:
    return [{"x": _prepare(picture, width)} for _, picture in lines]


def _prepare(picture: Image.Image, width: int) -> NDArray[np.float32]:
    """Scale to the model's height, blue first, in [-1, 1], zeros up to ``width``."""
    wide = min(int(np.ceil(picture.size[0] * HEIGHT / picture.size[1])), width)
    pixels = np.asarray(picture.resize((wide, HEIGHT), Image.Resampling.BILINEAR), np.float32)[:, :, ::-1]
    scaled = (pixels / 255 - 0.5) / 0.5
    return np.pad(scaled.transpose(2, 0, 1), ((0, 0), (0, 0), (0, width - wide)))[None].astype(np.float32)


def _decode(codes: NDArray[Any], characters: Sequence[str]) -> str:
    """Best path of a CTC head: repetitions once, blanks (0) left out."""
    kept = [code for index, code in enumerate(codes) if code and (index == 0 or code != codes[index - 1])]
    return "".join(characters[code] for code in kept)
