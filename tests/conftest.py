"""What holds for every test."""

import os

# Before torch is imported: the tensors here are small, and threads that spin cost more than they help. Fixed,
# so that sums do not depend on the machine's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
