"""How much host memory loading takes at most."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.worker.values import save_tensors

SHARDS, SHARD_NUMBERS = 6, 8 << 20  # float32: 32 MiB each
# VmHWM is the most memory the process ever had resident, mapped files included. It is compared
# with what is resident before the second load; the first, of one number, brings in the code.
PEAK = """
import sys, torch
from pathlib import Path
from easel.worker.parameters import ParameterPlan, Source
from easel.worker.weights import load_parameters
from safetensors.torch import save_file

def resident(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field + ":"))

def load(path, shards, numbers):
    shapes = {f"{index}.weight": (numbers,) for index in range(shards)}
    plan = ParameterPlan(shapes, {name: Source(shape, name) for name, shape in shapes.items()})
    return load_parameters(path, plan, getattr(torch, sys.argv[2]), torch.device("cpu"))

path = Path(sys.argv[1])
small = path / "small"
small.mkdir()
save_file({"0.weight": torch.ones(1)}, small / "model.safetensors")
load(small, 1, 1)
before = resident("VmRSS")
loaded = load(path, int(sys.argv[3]), int(sys.argv[4]))
print(resident("VmHWM") - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_host_memory_peaks_at_the_parameters_and_one_shard(tmp_path: Path, dtype: torch.dtype) -> None:
    """The high-water mark of a process of its own rises by them, and a fifth of a shard for the rest."""
    names = {f"{index}.weight": f"{index}.safetensors" for index in range(SHARDS)}
    for name, file in names.items():
        save_tensors({name: torch.ones(SHARD_NUMBERS)}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    wanted = str(tmp_path), str(dtype).removeprefix("torch."), str(SHARDS), str(SHARD_NUMBERS)
    found = subprocess.run(
        [sys.executable, "-c", PEAK, *wanted],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONSAFEPATH": "1"},
    )
    parameters = SHARDS * SHARD_NUMBERS * dtype.itemsize
    assert parameters <= int(found.stdout) <= parameters + 1.2 * SHARD_NUMBERS * 4
