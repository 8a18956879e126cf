"""What a persistent launch is given and what it leaves, as plain tensors; `slots` are canvases."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from easel.kernels.canvas_state import CanvasState, Whole
from easel.kernels.commit import StepTraits


@dataclass(frozen=True, slots=True)
class PersistentLayer:
    """One layer of a dense decoder; q = heads * d, kv = kv_heads * d."""

    input_norm: Tensor  # [h]
    qkv: Tensor  # [q + 2 kv, h]
    qk_norm: Tensor | None  # [heads + kv_heads, d]; the query heads' weights, then the key heads'
    out: Tensor  # [h, q]
    mlp_norm: Tensor  # [h]
    gate_up: Tensor  # [2 inner, h]  the gate's rows first
    down: Tensor  # [h, inner]
    qkv_bias: Tensor | None = None  # not covered


@dataclass(frozen=True, slots=True)
class PersistentWeights:
    """A dense decoder whose weights fit a GPU's L2, layers side by side. All of one dtype but frequencies."""

    embedding: Tensor  # [vocabulary, h]
    input_norm: Tensor  # [layers, h]
    qkv: Tensor  # [layers, q + 2 kv, h]
    qk_norm: Tensor  # [layers, heads + kv_heads, d]
    out: Tensor  # [layers, h, q]
    mlp_norm: Tensor  # [layers, h]
    gate_up: Tensor  # [layers, 2 inner, h]
    down: Tensor  # [layers, h, inner]
    final_norm: Tensor  # [h]
    head: Tensor  # [vocabulary, h]
    frequencies: Tensor  # [d / 2]  float32  radians a position; see rope.inverse_frequencies
    epsilon: float  # of the norms

    @classmethod
    def stack(
        cls,
        layers: Sequence[PersistentLayer],
        *,
        embedding: Tensor,
        final_norm: Tensor,
        head: Tensor,
        frequencies: Tensor,
        epsilon: float,
    ) -> "PersistentWeights":
        """Copies the layers' tensors. Raises ValueError for biases, experts and heads without norms."""
        for index, layer in enumerate(layers):
            _require_dense(index, layer)
        return cls(
            embedding=embedding.contiguous(),
            input_norm=torch.stack([layer.input_norm for layer in layers]),
            qkv=torch.stack([layer.qkv for layer in layers]),
            qk_norm=torch.stack([layer.qk_norm for layer in layers if layer.qk_norm is not None]),
            out=torch.stack([layer.out for layer in layers]),
            mlp_norm=torch.stack([layer.mlp_norm for layer in layers]),
            gate_up=torch.stack([layer.gate_up for layer in layers]),
            down=torch.stack([layer.down for layer in layers]),
            final_norm=final_norm.contiguous(),
            head=head.contiguous(),
            frequencies=frequencies.contiguous(),
            epsilon=epsilon,
        )

    @property
    def layers(self) -> int:
        return self.qkv.shape[0]

    @property
    def hidden(self) -> int:
        return self.embedding.shape[1]

    @property
    def dim(self) -> int:
        """Of a head."""
        return self.qk_norm.shape[2]

    @property
    def heads(self) -> int:
        return self.out.shape[2] // self.dim

    @property
    def kv_heads(self) -> int:
        return self.qk_norm.shape[1] - self.heads

    @property
    def inner(self) -> int:
        return self.down.shape[2]

    @property
    def nbytes(self) -> int:
        """What a step reads: it should be well below the device's L2."""
        return sum(tensor.nbytes for tensor in self.tensors().values()) - self.embedding.nbytes

    def tensors(self) -> dict[str, Tensor]:
        return {
            "embedding": self.embedding,
            "input_norm": self.input_norm,
            "qkv": self.qkv,
            "qk_norm": self.qk_norm,
            "out": self.out,
            "mlp_norm": self.mlp_norm,
            "gate_up": self.gate_up,
            "down": self.down,
            "final_norm": self.final_norm,
            "head": self.head,
            "frequencies": self.frequencies,
        }


@dataclass(frozen=True, slots=True)
class PersistentPages:
    """Where each canvas's prefix lies; the canvas's first position is the prefix's length."""

    keys: Tensor  # [layers, store tokens, kv_heads, d]
    values: Tensor  # the same
    table: Tensor  # [slots, pages]  int32  page i holds store tokens [i * page_size, (i + 1) * page_size)
    prefix: Tensor  # [slots]  int32  tokens
    page_size: int


@dataclass(frozen=True, slots=True)
class PersistentControl:
    """How host and launch talk. The flag may be pinned host memory, to be raised without a stream."""

    shutdown: Tensor  # [1]  int32  not 0: canvases stop after the step they are in; up at a launch's end
    finished: Tensor  # [1]  int32  programs that have ended; 0 before a launch, and after it again

    @classmethod
    def allocate(cls, device: torch.device) -> "PersistentControl":
        def zero() -> Tensor:
            return torch.zeros(1, dtype=torch.int32, device=device)

        return cls(shutdown=zero(), finished=zero())


@dataclass(frozen=True, slots=True)
class PersistentTask:
    """One launch: canvases go on until they are done or have taken `max_steps` steps."""

    weights: PersistentWeights
    state: CanvasState
    pages: PersistentPages
    control: PersistentControl
    traits: StepTraits  # of the active canvases, as the host knows them
    eos_token_ids: Tensor  # [k]  int64
    mask_token_id: int  # never predicted
    max_steps: int

    @property
    def slots(self) -> int:
        return self.state.tokens.shape[0]


@dataclass(frozen=True, slots=True)
class PersistentOutcome:
    """What a launch came to; what else there is to know stands in the state."""

    state: CanvasState
    steps: Tensor  # [slots]  int32  taken in this launch; as it was where a canvas was not active

    @property
    def done(self) -> Tensor:
        """[slots] bool"""
        return self.state.whole(Whole.ACTIVE) == 0


@dataclass(frozen=True, slots=True)
class PersistentTrace:
    """Every stage's tensors of every step, where one looks at them. Rows that no step wrote stay."""

    layers: Tensor  # [steps, slots, layers, block, h]  the residual stream after each layer
    hidden: Tensor  # [steps, slots, block, h]  stage 1, final norm applied
    token: Tensor  # [steps, slots, block]  int64  stage 2; 0 where a position is decided, as the next two
    confidence: Tensor  # [steps, slots, block]  float32
    entropy: Tensor  # [steps, slots, block]  float32
    accepted: Tensor  # [steps, slots, block]  bool  stage 3
    tokens: Tensor  # [steps, slots, block]  int64  stage 4: the registers after it
    decided: Tensor  # [steps, slots, block]  bool
    done: Tensor  # [steps, slots]  bool  stage 5
    mean_entropy: Tensor  # [steps, slots]  float32

    @classmethod
    def allocate(cls, task: PersistentTask) -> "PersistentTrace":
        rows = (task.max_steps, task.slots)
        block, weights = (*rows, task.state.block_length), task.weights
        like = weights.embedding

        def zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=like.device)

        return cls(
            layers=zeros((*rows, weights.layers, task.state.block_length, weights.hidden), like.dtype),
            hidden=zeros((*block, weights.hidden), like.dtype),
            token=zeros(block, torch.int64),
            confidence=zeros(block, torch.float32),
            entropy=zeros(block, torch.float32),
            accepted=zeros(block, torch.bool),
            tokens=zeros(block, torch.int64),
            decided=zeros(block, torch.bool),
            done=zeros(rows, torch.bool),
            mean_entropy=zeros(rows, torch.float32),
        )

    def tensors(self) -> dict[str, Tensor]:
        return {
            "layers": self.layers,
            "hidden": self.hidden,
            "token": self.token,
            "confidence": self.confidence,
            "entropy": self.entropy,
            "accepted": self.accepted,
            "tokens": self.tokens,
            "decided": self.decided,
            "done": self.done,
            "mean_entropy": self.mean_entropy,
        }


@dataclass(frozen=True, slots=True)
class PersistentScratch:
    """What a canvas's tiles exchange within a step, of the weights' dtype; what it holds does not matter."""

    residual: Tensor  # [slots, block, h]
    normed: Tensor  # [slots, block, h]
    heads: Tensor  # [slots, block, q + 2 kv]  turned queries, turned keys, values
    mixed: Tensor  # [slots, block, q]  what attention finds
    inner: Tensor  # [slots, block, inner]
    cosine: Tensor  # [slots, block, d / 2]
    sine: Tensor  # [slots, block, d / 2]

    @classmethod
    def allocate(cls, task: PersistentTask) -> "PersistentScratch":
        weights = task.weights
        queries = weights.heads * weights.dim
        h, half = weights.hidden, weights.dim // 2
        widths = (h, h, weights.qkv.shape[1], queries, weights.inner, half, half)
        shape = task.state.tokens.shape
        return cls(*(weights.embedding.new_empty(*shape, width) for width in widths))

    def tensors(self) -> tuple[Tensor, ...]:
        return (self.residual, self.normed, self.heads, self.mixed, self.inner, self.cosine, self.sine)


def _require_dense(index: int, layer: PersistentLayer) -> None:
    if layer.qkv_bias is not None:
        raise ValueError(f"persistent: layer {index} has a bias {tuple(layer.qkv_bias.shape)}: not covered")
    if layer.qk_norm is None:
        raise ValueError(f"persistent: layer {index} does not normalise queries and keys: not covered")
    if layer.gate_up.ndim != 2:
        raise ValueError(f"persistent: layer {index} has experts {tuple(layer.gate_up.shape)}: not covered")
