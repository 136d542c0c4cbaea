from __future__ import annotations

import math
import operator
import sys
from functools import partial

import distributed
import pytest

from qcompiler.errors import OptionError
from qcompiler.workers import AHEAD, Processes, Serial, open_executor


@pytest.mark.parametrize("text", ["serial", "processes:2"])
def test_results_come_in_the_order_of_the_items_and_errors_come_through(text):
    with open_executor(text) as executor:
        assert list(executor.map(partial(operator.mul, 3), range(20))) == [3 * item for item in range(20)]
        assert list(executor.map(math.sqrt, [])) == []
        with pytest.raises(ValueError, match=r"domain|nonnegative"):
            list(executor.map(math.sqrt, [4.0, -1.0]))


def test_items_are_drawn_only_as_they_are_needed():
    drawn = []

    def items():
        for item in range(100):
            drawn.append(item)
            yield float(item)

    with Processes(1) as executor:
        results = executor.map(math.sqrt, items())
        assert next(results) == 0.0
        assert len(drawn) <= AHEAD + 1


def test_texts_name_executors():
    assert isinstance(open_executor("serial"), Serial)
    for text in ("threads", "serial:2", "processes:0", "processes:x", "dask", "dask:"):
        with pytest.raises(OptionError, match="unknown executor"):
            open_executor(text)


def test_without_dask_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)  # importing it fails
    with pytest.raises(OptionError, match="pip install"):
        open_executor("dask:tcp://localhost:8786")


@pytest.mark.filterwarnings("default")
def test_a_local_dask_cluster_gives_the_same_results():
    cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
    with cluster, open_executor(f"dask:{cluster.scheduler_address}") as executor:
        assert list(executor.map(math.sqrt, [0.0, 1.0, 4.0])) == [0.0, 1.0, 2.0]
