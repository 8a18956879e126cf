"""The model families that can be served, and how each one's sequences are laid out. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from easel.scheduler.phase import SequenceLayout
from easel.scheduler.request import DiffusionParams

_MASKED = frozenset(
    {"steps", "commit_rule", "threshold", "entropy_bound", "schedule", "stop_entropy", "rebuild_every"}
)
_RENOISING = frozenset(
    {"steps", "entropy_bound", "stop_entropy", "stability", "temperature_start", "temperature_end"}
)


@dataclass(frozen=True, slots=True)
class Family:
    """What all models of one architecture share, and what holds where a checkpoint does not say."""

    name: str
    layout: SequenceLayout
    options: frozenset[str]  # fields of DiffusionParams that a request may set
    block_length: int
    mask_token_id: int | None  # None: the model has no mask
    eos_token_ids: tuple[int, ...] = ()
    shift: int = 0  # 1: a token is predicted at the position before it
    renoises: bool = False  # undecided positions hold random tokens instead of the mask
    plain_confidence: bool = False  # of a drawn token: under the model's distribution, not the tempered one
    diffusion: DiffusionParams = field(default_factory=DiffusionParams)


FAMILIES: Mapping[str, Family] = {
    "SDARForCausalLM": Family("SDAR", SequenceLayout.BLOCK_CAUSAL, _MASKED, 4, 151669),
    "SDARMoeForCausalLM": Family("SDAR-MoE", SequenceLayout.BLOCK_CAUSAL, _MASKED, 4, 151669),
    "LLaDA2MoeModelLM": Family(
        "LLaDA2",
        SequenceLayout.BLOCK_CAUSAL,
        _MASKED | {"edit_threshold"},
        block_length=32,
        mask_token_id=156895,
        eos_token_ids=(156892,),
        diffusion=DiffusionParams(threshold=0.95),
    ),
    "LLaDAModelLM": Family(
        "LLaDA",
        SequenceLayout.BIDIRECTIONAL,
        _MASKED,
        block_length=32,
        mask_token_id=126336,
        eos_token_ids=(126081, 126348),
        plain_confidence=True,
        diffusion=DiffusionParams(rebuild_every=8),
    ),
    "DreamModel": Family(
        "Dream",
        SequenceLayout.BIDIRECTIONAL,
        _MASKED,
        block_length=32,
        mask_token_id=151666,
        shift=1,
        diffusion=DiffusionParams(rebuild_every=8),
    ),
    "DiffusionGemmaForBlockDiffusion": Family(
        "DiffusionGemma",
        SequenceLayout.CAUSAL,
        _RENOISING,
        block_length=256,
        mask_token_id=None,
        renoises=True,
        diffusion=DiffusionParams(
            steps=48,
            entropy_bound=0.1,
            stop_entropy=0.005,
            temperature_start=0.8,
            temperature_end=0.4,
        ),
    ),
}
