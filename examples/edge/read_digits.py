"""An application at the edge: it reads digits with nothing but the machine (and numpy) installed.

    python read_digits.py digits.qprog images.npz [labels.npy]

README.md beside this file tells how to make the program.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
from qcompiler_runtime import MachineError, Session


def main() -> int:
    """Read every image of the file, one at a time; 2 when the program or the images are not what they should be."""
    parser = argparse.ArgumentParser(description="Read digits on the integer machine.")
    parser.add_argument("program", help="a .qprog")
    parser.add_argument("images", help="a .npz whose one array 'image' is float32 [N, 1, 28, 28]")
    parser.add_argument("labels", nargs="?", help="a .npy with the digits, to compare with")
    chosen = parser.parse_args()
    images = np.load(chosen.images)["image"]
    try:
        session = Session(chosen.program)
        # the first run ever compiles the kernels; the next process finds them on disk
        session.run({"image": images[:1]})
        start = time.perf_counter()
        digits = [int(session.run({"image": image[None]})["logits"].argmax()) for image in images]
    except MachineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    milliseconds = 1000 * (time.perf_counter() - start) / len(digits)
    print("read:", *digits[:20], "..." if len(digits) > 20 else "")
    print(f"{len(digits)} images, {milliseconds:.3f} ms each")
    if chosen.labels:
        print(f"accuracy {np.mean(digits == np.load(chosen.labels)):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
