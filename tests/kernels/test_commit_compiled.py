"""The launches after the head as a Hopper GPU would run them."""

import pytest

from easel.kernels.commit_triton import warps_of
from easel.kernels.renoise_triton import KEPT
from tests.kernels.gpu_build import Built, Kernel, built_for_sm90

# Arguments that are numbers or hold other numbers than int64.
OTHERS = {
    "decided": "*i1",
    "live": "*i1",
    "confidence": "*fp32",
    "numbers": "*fp32",
    "found_confidence": "*fp32",
    "found_entropy": "*fp32",
}
REGISTERS = ("tokens", "decided", "predicted", "confidence", "live", "quotas", "integers", "numbers", "at")
FOUND = ("found_best", "found_token", "found_confidence", "found_entropy")
FLAGS = ("eos_count", "settles", "edits", "partial", "shown", "vocabulary")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Built]:
    """All of them in one process."""
    steps = [step for block in (4, 32, 256) for step in (_commit(block), _renoise(block))]
    found = built_for_sm90([*steps, _keep(), _uniform()], tmp_path_factory.mktemp("triton"))
    assert len(found) == 8
    return found


def test_no_register_is_spilled(built: list[Built]) -> None:
    assert {kernel.name: kernel.spilled for kernel in built if kernel.spilled} == {}


def test_next_to_nothing_is_kept_in_shared_memory(built: list[Built]) -> None:
    """However many positions are compared with each other."""
    assert max(kernel.shared for kernel in built) <= 4096


def _commit(block: int) -> Kernel:
    return _step("easel.kernels.commit_triton", "_commit", ("eos_token_ids",), block)


def _renoise(block: int) -> Kernel:
    return _step("easel.kernels.renoise_triton", "_renoise", ("steps", "stability", "unchanged"), block)


def _step(module: str, name: str, more: tuple[str, ...], block: int) -> Kernel:
    kinds = dict.fromkeys((*REGISTERS, *FOUND, *more), "*i64") | OTHERS | dict.fromkeys(FLAGS, "i32")
    padded = 1 << (block - 1).bit_length()
    return Kernel(module, name, kinds, {"block": block, "padded": padded}, {"num_warps": warps_of(padded)})


def _keep() -> Kernel:
    kinds = {"soft": "*bf16", "kept": "*bf16", "integers": "*i64", "at": "*i64"}
    fixed = {"block": 256, "width": 2816, "columns": KEPT}
    return Kernel("easel.kernels.renoise_triton", "_keep", kinds, fixed)


def _uniform() -> Kernel:
    names = ("seed", "block", "step", "position")
    strides = [f"{name}_{axis}" for name in names for axis in ("row", "column")]
    kinds = dict.fromkeys(names, "*i64") | {"out": "*fp64"}
    kinds |= dict.fromkeys(("count", "width", "draw", *strides), "i32")
    return Kernel("easel.kernels.noise_triton", "_uniform", kinds, {"numbers": 256})
