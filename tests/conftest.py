"""What holds for every test."""

import os
from pathlib import Path

# Before torch is imported: the tensors here are small, and threads that spin cost more than they help. Fixed,
# so that sums do not depend on the machine's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Before triton is imported, which other packages do: where there is no GPU, its interpreter runs the kernels.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
