"""What holds for every test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before torch is imported: the tensors here are small, and threads that spin cost more than they help. Fixed,
# so that sums do not depend on the machine's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Before triton is imported, which other packages do: where there is no GPU, its interpreter runs the kernels.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """When processes share the tests, those of one cluster stay together, and begin first.

    xdist reads the groups in its own hook, which must find them.
    """
    for item in items:
        if item.get_closest_marker("end_to_end") is not None:
            item.add_marker(pytest.mark.xdist_group(_cluster_of(item)))
    yield
    items.sort(key=lambda item: item.get_closest_marker("end_to_end") is None)


def _cluster_of(item: pytest.Item) -> str:
    """The one that the session shares, or the module's own."""
    shared = isinstance(item, pytest.Function) and "cluster" in item.fixturenames
    return "cluster" if shared else item.path.stem
