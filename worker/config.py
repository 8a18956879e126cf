"""Settings of one engine."""

from dataclasses import dataclass, field
from enum import StrEnum

from easel.scheduler.composers import ComposePolicy
from easel.scheduler.messages import PhasePolicy


class LoopKind(StrEnum):
    """Who drives the steps of a canvas."""

    HOST = "host"  # every operation is launched by the host
    GRAPH = "graph"  # a step is recorded once and launched as a whole; CUDA
    WHILE = "while"  # several steps in one launch; CUDA 12.4
    PERSISTENT = "persistent"  # a canvas's steps in one kernel; CUDA, small dense decoders


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What an operator may choose about one replica's engine."""

    slots: int | None = None  # canvases denoised together; None: chosen, see worker/allocation.py
    pages: int | None = None  # of the prefix cache; None: chosen
    memory: int | None = None  # bytes of the device that weights and state may take; None: what is free
    page_size: int | None = None  # tokens; a multiple of the block length, which is the default
    dtype: str = "auto"  # auto, float32 or bfloat16
    quantise: str = "none"  # none or fp8: what matrices of a model that is not quantised become on loading
    pack_weights: str = "auto"  # auto, always or never: a CPU's matrices in oneDNN's own order
    device: str = "cpu"  # auto, cpu or cuda
    batch_invariant: str = "auto"  # auto, always or never: a row's bits do not depend on its neighbours
    threads: int | None = None  # of the CPU; None leaves torch's choice
    refresh_limit: int = 2048  # refresh tokens of one step, whatever a policy allows; memory is kept for them
    loop: LoopKind = LoopKind.HOST
    partial: bool = False  # keep canvases' keys and values, so that requests may ask for partial steps
    compose_policy: ComposePolicy = ComposePolicy.BALANCED
    policy: PhasePolicy = field(default_factory=PhasePolicy)
