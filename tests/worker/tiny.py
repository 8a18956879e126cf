"""Random checkpoints with the Hugging Face model they hold, and engines that run them."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from easel.scheduler.compose import ComposePolicy
from easel.scheduler.messages import PhasePolicy
from easel.scheduler.request import Request
from easel.worker.config import EngineConfig
from easel.worker.engine import Engine
from easel.worker.loading import load_engine
from tests.checkpoints import EOS_ID, MASK_ID, tiny_config, write_tiny_checkpoint
from tests.worker.cases import random_request
from tests.worker.reference import Generation, ReferenceModel

EOS_IDS = (EOS_ID, 30, 60, 90)  # several, so that a random model stops now and then
VOCABULARY = 105


@dataclass(frozen=True, slots=True)
class Dimensions:
    heads: int = 4
    kv_heads: int = 2
    layers: int = 2
    tied: bool = True
    block_length: int = 8
    eos_ids: tuple[int, ...] = EOS_IDS


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything about an engine that must not change what it generates; sizes in blocks."""

    slots: int = 4
    pages: int = 64
    page_blocks: int = 1
    refresh_blocks: int = 64
    compose_policy: ComposePolicy = ComposePolicy.BALANCED
    fuse_commits: bool = True
    partial: bool = False


@dataclass(frozen=True, slots=True)
class TinyCheckpoint:
    """A checkpoint on disk, the Hugging Face model in it, and what that model generates."""

    path: Path
    reference: ReferenceModel
    _known: dict[Request, Generation] = field(default_factory=dict[Request, Generation])

    @property
    def block_length(self) -> int:
        return self.reference.block_length

    def engine(self, layout: Layout | None = None, *, dtype: str = "float32") -> Engine:
        layout = layout or Layout()
        config = EngineConfig(
            slots=layout.slots,
            pages=layout.pages,
            page_size=layout.page_blocks * self.block_length,
            dtype=dtype,
            partial=layout.partial,
            compose_policy=layout.compose_policy,
            policy=PhasePolicy(
                refresh_tokens=layout.refresh_blocks * self.block_length,
                target_seconds=1e3,
                fuse_commits=layout.fuse_commits,
            ),
        )
        return load_engine(self.path, config)

    def requests(self, count: int, seed: int) -> list[Request]:
        draw = Random(seed)
        return [
            random_request(f"{seed}/{i}", draw, block_length=self.block_length, vocab_size=VOCABULARY)
            for i in range(count)
        ]

    def expected(self, request: Request) -> Generation:
        """What the plain loop generates; computed once a session."""
        key = replace(request, request_id="")
        if key not in self._known:
            self._known[key] = self.reference.generate(request)
        return self._known[key]


def write_tiny(path: Path, dimensions: Dimensions) -> TinyCheckpoint:
    config = tiny_config(
        heads=dimensions.heads,
        kv_heads=dimensions.kv_heads,
        layers=dimensions.layers,
        tied=dimensions.tied,
        vocab_size=VOCABULARY,
        eos_ids=dimensions.eos_ids,
    )
    model = write_tiny_checkpoint(path, config, block_length=dimensions.block_length, sharpness=3.0)
    return TinyCheckpoint(
        path, ReferenceModel(model, dimensions.block_length, MASK_ID, frozenset(dimensions.eos_ids))
    )
