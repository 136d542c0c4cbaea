"""Old name of `qcompiler.graph.runner`: passes of other packages import it. It goes with version 0.2."""

from __future__ import annotations

import warnings

from qcompiler.graph.runner import *

warnings.warn("qcompiler.runner is now qcompiler.graph.runner", DeprecationWarning, stacklevel=2)
