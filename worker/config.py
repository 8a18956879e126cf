"""Settings of one engine."""

from dataclasses import dataclass, field

from easel.scheduler.composers import ComposePolicy
from easel.scheduler.messages import PhasePolicy


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What an operator may choose about one replica's engine."""

    slots: int = 16  # canvases denoised together
    pages: int = 1024  # of the prefix cache
    page_size: int | None = None  # tokens; a multiple of the block length, which is the default
    dtype: str = "auto"  # auto, float32 or bfloat16
    device: str = "cpu"
    threads: int | None = None  # of the CPU; None leaves torch's choice
    partial: bool = False  # keep canvases' keys and values, so that requests may ask for partial steps
    compose_policy: ComposePolicy = ComposePolicy.BALANCED
    policy: PhasePolicy = field(default_factory=PhasePolicy)
