"""What holds for every test."""

import os
from pathlib import Path, PurePath

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Modules that start clusters, beside the one that tests/end_to_end shares.
OF_THEIR_OWN = ("test_family_checkpoints.py", "test_serve_deploy.py", "test_chaos.py")

# Before torch is imported: the tensors here are small, and threads that spin cost more than they help. Fixed,
# so that sums do not depend on the machine's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Before triton is imported, which other packages do: where there is no GPU, its interpreter runs the kernels.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


class _TogetherByCluster(LoadScopeScheduling):
    """Tests of one cluster, or of the site, in one process; all others wherever there is time."""

    def _split_scope(self, nodeid: str) -> str:
        path = PurePath(nodeid.partition("::")[0])
        if path.name in OF_THEIR_OWN:
            return path.name
        if path.parent.name == "end_to_end":
            return "cluster"
        return "site" if path.name.startswith("test_site") else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """In place of xdist's own groups, which pytest 9.2 does not let it write into the tests' names."""
    return _TogetherByCluster(config, log) if config.getoption("dist") == "loadgroup" else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that start a cluster take longest, and begin first."""
    items.sort(key=lambda item: item.get_closest_marker("end_to_end") is None)
