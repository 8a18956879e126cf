"""Counts that all gateway processes of a machine share, so that each of them shows the sums.

Prometheus reaches one of the processes behind the port, never the same one. So each process keeps
its numbers in files of a common folder (prometheus-client's multiprocess mode) and whoever is
asked adds all of them up. What a process that died has counted stays counted; what it had open
does not.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, cast

import psutil
from prometheus_client import multiprocess, values
from prometheus_client.metrics_core import Metric

from easel.cluster.gateway.metric_names import GATEWAY_METRICS

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
_LIBRARY: Final = cast(Any, multiprocess)  # its functions are not annotated
_LIVE_GAUGES = re.compile(r"gauge_live[a-z]*_(?P<pid>[0-9]+)\.db")
_PRIVATE: Final = 0o700
_OURS = frozenset(metric.name.removesuffix("_total") for metric in GATEWAY_METRICS)


def share_counts(folder: Path) -> None:
    """Every metric that this process makes from now on keeps its numbers there.

    The library asks its environment when it is first imported, which is long past.
    """
    folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    os.environ[VARIABLE] = str(folder)
    values.ValueClass = values.get_value_class()


def merged(folder: Path) -> list[Metric]:
    """The sums over all processes, of Easel's metrics only."""
    forget_dead(folder)
    collected: Iterable[Metric] = _LIBRARY.MultiProcessCollector(None, str(folder)).collect()
    return [metric for metric in collected if metric.name in _OURS]


def is_abandoned(folder: Path) -> bool:
    """Whether every process that counted there has ended."""
    pids = {int(file.stem.rpartition("_")[2]) for file in folder.glob("*_[0-9]*.db")}
    return bool(pids) and not any(map(psutil.pid_exists, pids))


def forget_dead(folder: Path) -> None:
    """Remove what counts only while its process lives."""
    for file in folder.glob("gauge_live*.db"):
        match = _LIVE_GAUGES.fullmatch(file.name)
        if match is not None and not psutil.pid_exists(int(match["pid"])):
            _LIBRARY.mark_process_dead(int(match["pid"]), str(folder))
