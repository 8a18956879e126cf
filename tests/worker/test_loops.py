"""A loop that the device cannot run is refused when the engine loads, in words."""

from pathlib import Path

import pytest

from easel.worker.config import EngineConfig, LoopKind
from easel.worker.engine import Engine
from easel.worker.errors import WorkerError
from easel.worker.host_loop import HostLoop
from easel.worker.loading import load_engine
from easel.worker.loops import spare_slots
from tests.worker.tiny import TinyCheckpoint


def test_the_host_drives_steps_unless_told_otherwise(tiny: TinyCheckpoint) -> None:
    assert isinstance(_loaded(tiny.path).runner.loop, HostLoop)


@pytest.mark.parametrize("kind", [LoopKind.GRAPH, LoopKind.WHILE, LoopKind.PERSISTENT])
def test_loops_on_the_device_need_one(tiny: TinyCheckpoint, kind: LoopKind) -> None:
    with pytest.raises(WorkerError, match=f"'{kind.value}' .* CUDA device; use 'host'"):
        _loaded(tiny.path, kind)


def test_recorded_steps_are_padded_with_a_slot_of_their_own() -> None:
    assert [spare_slots(kind) for kind in LoopKind] == [0, 1, 1, 0]


def _loaded(path: Path, kind: LoopKind = LoopKind.HOST) -> Engine:
    return load_engine(path, EngineConfig(slots=2, pages=8, dtype="float32", loop=kind))
