"""How many numbers a forward reads and multiplies with: what a model costs, whatever runs it."""

from dataclasses import dataclass

from easel.worker.models.backbone import BackboneConfig
from easel.worker.models.config import DecoderConfig, Router
from easel.worker.models.gemma_config import GemmaConfig


@dataclass(frozen=True, slots=True)
class LayerAnatomy:
    """One layer. Matrices are multiplied with every token, experts with those that choose them."""

    matrices: int  # numbers in dense matrices: attention, MLP, router, shared experts
    vectors: int  # numbers in norms, biases and scales
    heads: int
    kv_heads: int
    head_dim: int
    inner: int  # width of the dense MLP, or of the experts that every token passes
    window: int | None = None  # tokens a query sees, itself included; None: all
    experts: int = 0
    chosen: int = 0  # of each token
    expert: int = 0  # numbers in one expert

    @property
    def parameters(self) -> int:
        return self.matrices + self.vectors + self.experts * self.expert

    @property
    def active(self) -> int:
        """Numbers that one token meets."""
        return self.parameters - (self.experts - self.chosen) * self.expert


@dataclass(frozen=True, slots=True)
class Anatomy:
    """A whole model."""

    layers: tuple[LayerAnatomy, ...]
    hidden_size: int
    vocab_size: int
    tied: bool  # the head is the embedding
    vectors: int  # numbers in norms outside the layers
    conditioning: int = 0  # numbers in the matrices that self-conditioning adds; 0: there is none

    @property
    def embedding(self) -> int:
        return self.vocab_size * self.hidden_size

    @property
    def _around_layers(self) -> int:
        return self.embedding * (1 if self.tied else 2) + self.vectors + self.conditioning

    @property
    def parameters(self) -> int:
        return self._around_layers + sum(layer.parameters for layer in self.layers)

    @property
    def active(self) -> int:
        """Numbers that one token meets, embedding and head counted whole."""
        return self._around_layers + sum(layer.active for layer in self.layers)


def anatomy_of(config: BackboneConfig) -> Anatomy:
    """The anatomy of a model that has an implementation here."""
    if isinstance(config, DecoderConfig):
        return _decoder(config)
    if isinstance(config, GemmaConfig):
        return _gemma(config)
    raise TypeError(f"{type(config).__name__} has no anatomy")


def _decoder(config: DecoderConfig) -> Anatomy:
    return Anatomy(
        layers=tuple(_decoder_layer(config, index) for index in range(config.layers)),
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        tied=config.tied_embeddings,
        vectors=config.hidden_size,
    )


def _decoder_layer(config: DecoderConfig, index: int) -> LayerAnatomy:
    h, experts = config.hidden_size, config.experts
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    attention = h * (q + 2 * kv) + q * h
    vectors = 2 * h + (q + 2 * kv) * config.qkv_bias + 2 * config.head_dim * config.qk_norm
    heads = {"heads": config.heads, "kv_heads": config.kv_heads, "head_dim": config.head_dim}
    if experts is None or not config.has_experts(index):
        inner = config.intermediate_size
        return LayerAnatomy(attention + 3 * h * inner, vectors, inner=inner, **heads)
    return LayerAnatomy(
        matrices=attention + h * experts.count + 3 * h * experts.shared_size,
        vectors=vectors + experts.count * (experts.router is Router.GROUPED_SIGMOID),  # its bias
        inner=experts.shared_size,
        experts=experts.count,
        chosen=experts.chosen,
        expert=3 * h * experts.intermediate_size,
        **heads,
    )


def _gemma(config: GemmaConfig) -> Anatomy:
    h = config.hidden_size
    return Anatomy(
        layers=tuple(_gemma_layer(config, index) for index in range(config.layers)),
        hidden_size=h,
        vocab_size=config.vocab_size,
        tied=True,
        vectors=2 * h,  # the final norm, and the one before self-conditioning
        conditioning=3 * h * config.intermediate_size,
    )


def _gemma_layer(config: GemmaConfig, index: int) -> LayerAnatomy:
    h, shape, full = config.hidden_size, config.attention(index), config.is_full[index]
    q, kv = config.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    attention = h * (q + kv * (1 if full else 2)) + q * h  # full layers' values come from the keys
    return LayerAnatomy(
        matrices=attention + 3 * h * config.intermediate_size + h * config.experts,
        # Seven norms and the router's scale, norms of queries and keys, experts' scales, a scalar for
        # encoding and one for decoding.
        vectors=8 * h + 2 * shape.head_dim + config.experts + 2,
        heads=config.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        inner=config.intermediate_size,
        window=None if full else config.window,
        experts=config.experts,
        chosen=config.experts_chosen,
        expert=3 * h * config.expert_size,
    )
