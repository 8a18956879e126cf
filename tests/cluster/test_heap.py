"""A process that serves does not stop to look at its libraries."""

import subprocess
import sys

LOADED = """
import gc
import easel.cluster.gateway.app
from easel.cluster.heap import settle_heap

class Ring:
    pass

before = len(gc.get_objects())
ring = Ring()
ring.itself = ring
del ring
settle_heap()
assert not any(type(one).__name__ == "Ring" for one in gc.get_objects()), "what was garbage is gone"
print(before, len(gc.get_objects()))
"""


def test_a_collection_no_longer_looks_at_what_was_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before > 10_000
    assert after < 100
