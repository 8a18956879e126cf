"""What a replica takes: weights, slots, pages and workspace, computed by the code that allocates them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from easel.scheduler.messages import ReplicaShape
from easel.scheduler.window import window_share
from easel.worker.config import EngineConfig
from easel.worker.models.backbone import Backbone
from easel.worker.models.registry import definition_of
from easel.worker.parameters import ParameterPlan
from easel.worker.sketch import ModelSketch
from easel.worker.state import allocate_state, replica_shape
from easel.worker.storage import Storage
from easel.worker.workspace import workspace_bytes

CPU = torch.device("cpu")
MOST_SLOTS = 256  # that are chosen: beyond it a step's time grows as fast as its tokens
MOST_PAGES = 1 << 20  # that are chosen: each costs the host some bookkeeping


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of a replica of one model, for any number of slots and pages."""

    sketch: ModelSketch
    config: EngineConfig  # its slots and pages are not looked at
    dtype: torch.dtype
    plan: ParameterPlan  # what is loaded
    blueprint: Backbone  # on the meta device
    device: torch.device = CPU  # where it would run: what a forward takes depends on it

    @classmethod
    def of(
        cls,
        sketch: ModelSketch,
        config: EngineConfig,
        dtype: torch.dtype,
        storage: Storage | None = None,
        *,
        device: torch.device = CPU,
    ) -> "Footprint":
        """Builds the model on the meta device, where tensors have shapes and no memory.

        Without `storage` matrices lie in memory in `dtype`, whatever they are stored in.
        """
        plan = sketch.loaded(storage or Storage())
        parameters = {
            name: torch.empty(shape, dtype=plan.dtype_of(name, dtype), device="meta")
            for name, shape in plan.parameters.items()
        }
        build = definition_of(sketch.info.architecture).build
        return cls(sketch, config, dtype, plan, build(sketch.dimensions, parameters), device)

    def shape(self, slots: int, pages: int) -> ReplicaShape:
        return replica_shape(self.sketch.info, self.sketch.dimensions, self.config, slots, pages)

    @property
    def page_size(self) -> int:
        """Tokens."""
        return self.shape(1, 1).page_size

    @property
    def weights(self) -> int:
        return self.plan.bytes(self.dtype)

    @property
    def page(self) -> int:
        """Bytes of one page of the prefix cache."""
        return self._store(0, 1)

    def slot(self) -> dict[str, int]:
        """Bytes of one slot, part by part; parts that a model has not are left out."""
        state = allocate_state(self.sketch.info, self.sketch.dimensions, self.shape(1, 0), self.blueprint)
        held = self.shape(1, 0)
        share = window_share(held.window, held.page_size) if held.window else 0
        parts = {
            "registers": state.registers.bytes_per_slot(),
            "denoiser": state.denoiser.bytes_per_slot(),
            "sliding window": share * self._window_page(),
            "canvas keys and values": self._store(1, 0) - held.window_pages * self._window_page(),
        }
        return {name: size for name, size in parts.items() if size}

    def spare(self, slots: int) -> int:
        """Bytes of the window pages that all slots have in common, for the rows that one forward writes."""
        shape = self.shape(slots, 0)
        if not shape.window:
            return 0
        shares = slots * window_share(shape.window, shape.page_size)
        return (shape.window_pages - shares) * self._window_page()

    def workspace(self, slots: int, pages: int) -> int:
        """Bytes that one forward may take besides; an upper bound."""
        groups = self.sketch.dimensions.kv_groups
        shape, float8 = self.shape(slots, pages), bool(self.plan.float8)
        return workspace_bytes(self.sketch.anatomy, groups, shape, self.dtype, self.device, float8=float8)

    def parts(self, slots: int, pages: int) -> dict[str, int]:
        """Bytes of a replica of that many slots and pages."""
        spare = self.spare(slots)
        return {
            "weights": self.weights,
            "slots": slots * sum(self.slot().values()),
            **({"window spare": spare} if spare else {}),
            "pages": pages * self.page,
            "workspace": self.workspace(slots, pages),
        }

    def total(self, slots: int, pages: int) -> int:
        return sum(self.parts(slots, pages).values())

    def fit(self, memory: int, slots: int | None, pages: int | None, prefix: int) -> tuple[int, int]:
        """The most slots, each with pages for `prefix` tokens, then the most pages, within `memory` bytes.

        A number that is given is kept. (0, 0) when not even one slot fits.
        """
        each = -(-prefix // self.page_size)
        slot = sum(self.slot().values())
        fixed = self.weights

        def needs(count: int, held: int) -> int:
            shared = self.spare(count) + self.workspace(count, held)
            return fixed + count * slot + held * self.page + shared

        if slots is None:
            slots = _most(lambda n: needs(n, n * each if pages is None else pages) <= memory, MOST_SLOTS)
        if not slots:
            return 0, 0
        if pages is None:
            pages = _most(lambda n: needs(slots, n) <= memory, MOST_PAGES)
        return (slots, pages) if pages and needs(slots, pages) <= memory else (0, 0)

    def _store(self, slots: int, pages: int) -> int:
        """Bytes of keys and values."""
        state = allocate_state(
            self.sketch.info, self.sketch.dimensions, self.shape(slots, pages), self.blueprint
        )
        return sum(tensor.nbytes for tensor in (*state.cache.keys, *state.cache.values))

    def _window_page(self) -> int:
        """Bytes of one page of sliding-window layers."""
        windowed = [group for group in self.sketch.dimensions.kv_groups if group.window]
        return sum(group.bytes_per_token(self.dtype) for group in windowed) * self.page_size


def _most(fits: Callable[[int], bool], limit: int) -> int:
    """The largest number up to `limit` that fits; 0 if not even 1 does. What fits, fits if it is less."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
