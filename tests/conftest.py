"""What holds for every test."""

import os
from pathlib import Path

import pytest

# Before torch is imported: the tensors here are small, and threads that spin cost more than they help. Fixed,
# so that sums do not depend on the machine's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Before triton is imported, which other packages do: where there is no GPU, its interpreter runs the kernels.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """When processes share the tests, those that start a cluster stay together, and begin first."""
    clustered = [item for item in items if item.get_closest_marker("end_to_end") is not None]
    for item in clustered:
        item.add_marker(pytest.mark.xdist_group("cluster"))
    items.sort(key=lambda item: item.get_closest_marker("end_to_end") is None)
