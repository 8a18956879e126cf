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
COLUMNS = 1024
# VmHWM is the most memory the process ever had resident, mapped files included. It is compared
# with what is resident before the second load; the first, of one number, brings in the code.
PEAK = """
import sys, torch
from pathlib import Path
from easel.worker.parameters import Fill, ParameterPlan, Source
from easel.worker.weights import load_parameters
from safetensors.torch import save_file

def resident(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field + ":"))

def load(path, shards, rows, columns, stored):
    shapes = {f"{index}.weight": (rows, columns) for index in range(shards)}
    sources = {name: Source(shape, name, float8=stored == "float8") for name, shape in shapes.items()}
    if stored == "float8":
        sources |= {f"{name}_scale": Source((rows,), name, fill=Fill.SCALE) for name in shapes}
    if stored == "rounded":
        sources = {name: Source(shape, name, fill=Fill.QUANTISE) for name, shape in shapes.items()}
    plan = ParameterPlan(shapes, sources)
    return load_parameters(path, plan, getattr(torch, sys.argv[2]), torch.device("cpu"))

path = Path(sys.argv[1])
small = path / "small"
small.mkdir()
stored = sys.argv[6]
kind = torch.float8_e4m3fn if stored == "float8" else torch.float32
scales = {"0.weight_scale": torch.ones(1)} if stored == "float8" else {}
save_file({"0.weight": torch.ones(1, 1).to(kind), **scales}, small / "model.safetensors")
load(small, 1, 1, 1, stored)
before = resident("VmRSS")
loaded = load(path, *map(int, sys.argv[3:6]), stored)
print(resident("VmHWM") - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("stored", "dtype"),
    [
        ("float", torch.float32),
        ("float", torch.bfloat16),
        ("float8", torch.bfloat16),
        ("rounded", torch.bfloat16),
    ],
)
def test_host_memory_peaks_at_the_parameters_and_one_shard(
    tmp_path: Path, stored: str, dtype: torch.dtype
) -> None:
    """The high-water mark of a process of its own rises by them, and 6 MiB for the rest."""
    rows, kind = SHARD_NUMBERS // COLUMNS, torch.float8_e4m3fn if stored == "float8" else torch.float32
    names = {f"{index}.weight": f"{index}.safetensors" for index in range(SHARDS)}
    listed = dict(names)
    for name, file in names.items():
        tensors = {name: torch.ones(rows, COLUMNS).to(kind)}
        if stored == "float8":
            tensors[f"{name}_scale"] = torch.ones(rows)
            listed[f"{name}_scale"] = file
        save_tensors(tensors, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    wanted = (str(tmp_path), str(dtype).removeprefix("torch."), str(SHARDS), str(rows), str(COLUMNS), stored)
    found = subprocess.run(
        [sys.executable, "-c", PEAK, *wanted],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONSAFEPATH": "1"},
    )
    parameters = SHARDS * SHARD_NUMBERS * dtype.itemsize
    shard = SHARD_NUMBERS * kind.itemsize
    assert parameters <= int(found.stdout) <= parameters + shard + (6 << 20)
