"""Whether a row's result is kept, to the last bit, from depending on what else is in its forward.

Then an answer does not depend on the load, nor on whether it was resumed on another replica of the same
kind. What is done for it is in docs/decisions/0011-batch-invariance.md.
"""

import torch

from easel.kernels.row_tiles import products_agree
from easel.worker.config import EngineConfig, LoopKind
from easel.worker.errors import WorkerError

SETTINGS = ("auto", "always", "never")


def choose_invariance(
    config: EngineConfig, device: torch.device, dtype: torch.dtype, *, float8: bool = False
) -> bool:
    """Whether the mode is on. Raises WorkerError for an unknown setting, and where "always" cannot be.

    "auto" is on where it was measured to cost at most a twentieth: in float32 on a CPU
    (docs/performance.md), if the CPU's products pass a short trial. A GPU's cost has not been
    measured, nor that of a CPU in bfloat16. `float8`: whether matrices are kept in it.
    """
    setting = config.batch_invariant
    if setting not in SETTINGS:
        raise WorkerError(f"batch_invariant is {setting!r}; it must be one of {', '.join(SETTINGS)}.")
    if setting == "never":
        return False
    reason = _obstacle(config, device, dtype, float8=float8)
    if setting == "always" and reason:
        raise WorkerError(f"batch_invariant is 'always', and {reason}; set it to auto.")
    return not reason and (setting == "always" or (device.type == "cpu" and dtype == torch.float32))


def _obstacle(config: EngineConfig, device: torch.device, dtype: torch.dtype, *, float8: bool) -> str:
    """Why rows would depend on their neighbours; empty: nothing is known that would make them."""
    if float8:
        return "products of float8 matrices choose their tiles by the number of tokens"
    if config.loop is LoopKind.PERSISTENT:
        return "the loop 'persistent' sums in another order than the forwards that prefill"
    if device.type == "cpu" and not products_agree(dtype):
        return "this CPU's matrix products depend on the number of rows"
    return ""
