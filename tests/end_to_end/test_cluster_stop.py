"""Ctrl-C leaves nothing behind. The last test, because it ends the session's cluster."""

import os
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from easel.cluster.errors import PortTaken
from easel.cluster.lifecycle import RunningCluster, start

pytestmark = pytest.mark.end_to_end


def test_a_taken_port_is_refused_by_name(cluster: RunningCluster) -> None:
    with pytest.raises(PortTaken, match=str(cluster.config.port)):
        start(cluster.config)


def status_of(cluster: RunningCluster, seconds: float) -> int:
    """With which it ends; fails with what it said last if it does not."""
    try:
        return cluster.process.wait(seconds)
    except subprocess.TimeoutExpired:
        cluster.log.seek(0)
        pytest.fail(cluster.log.read().decode(errors="replace")[-4000:])


def test_ctrl_c_ends_every_process_and_removes_every_file(cluster: RunningCluster) -> None:
    family = psutil.Process(cluster.process.pid).children(recursive=True)
    words = " ".join(word for process in family for word in process.cmdline())
    folders = {Path(found) for found in re.findall(r"/tmp/easel-[^/ ]+", words)}
    assert any("valkey" in process.name() for process in family)
    assert len(folders) == 2
    # A terminal signals the whole foreground process group; an impatient user does so twice.
    os.killpg(cluster.process.pid, signal.SIGINT)
    cluster.process.terminate()
    assert status_of(cluster, 120) == 0
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    assert [folder for folder in folders if folder.exists()] == []
