"""What the engine asks of a model: hidden states of a ragged batch, and what the head is."""

from typing import Protocol

from torch import Tensor

from easel.worker.batch import ForwardBatch
from easel.worker.kv_cache import KVCache, KVGroup, LayerPlace


class BackboneConfig(Protocol):
    """Dimensions that allocation depends on."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def kv_groups(self) -> tuple[KVGroup, ...]: ...
    @property
    def places(self) -> tuple[LayerPlace, ...]: ...  # of each layer

    def with_fixed_tiles(self) -> "BackboneConfig":
        """The same for a model whose rows come to the same bits whatever else is in a forward."""
        ...


class Backbone(Protocol):
    """A model without state: the prefix cache comes in with each forward."""

    @property
    def head(self) -> Tensor: ...  # [vocabulary, h]

    def forward(self, batch: ForwardBatch, cache: KVCache, conditioning: Tensor | None) -> Tensor:
        """Hidden states [n, h] of all tokens, final norm applied; stores what the batch says.

        `conditioning` [c, block, h] is what the canvases' last step left for the next, of models
        that use it.
        """
        ...
