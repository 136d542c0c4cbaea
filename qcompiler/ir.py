"""Old name of `qcompiler.graph.ir`: passes of other packages import it. It goes with version 0.2."""

from __future__ import annotations

import warnings

from qcompiler.graph.ir import *

warnings.warn("qcompiler.ir is now qcompiler.graph.ir", DeprecationWarning, stacklevel=2)
