"""Who holds a slot, by stage, kept up to date so that no step has to look for anything."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from easel.scheduler.cost import Workload
from easel.scheduler.errors import BrokenBooks
from easel.scheduler.life import RequestState, Stage
from easel.scheduler.messages import Row
from easel.scheduler.rows import step_row


@dataclass(slots=True)
class SlotTable:
    """Slots of one replica. The dicts are keyed by request id and keep the order of entry."""

    capacity: int
    free: list[int] = field(init=False)
    prefilling: dict[str, RequestState] = field(default_factory=dict[str, RequestState])
    denoising: dict[str, RequestState] = field(default_factory=dict[str, RequestState])
    finished: dict[str, RequestState] = field(default_factory=dict[str, RequestState])
    canvas_rows: dict[str, Row] = field(default_factory=dict[str, Row])  # of all that are denoising
    canvas_load: Workload = field(default_factory=Workload)  # of those rows
    classes: Counter[int] = field(default_factory=Counter[int])  # priorities of all that hold a slot
    looked_at: int = 0  # of those that are denoising, how many the host sees after every step

    def __post_init__(self) -> None:
        self.free = list(range(self.capacity - 1, -1, -1))

    @property
    def used(self) -> int:
        return self.capacity - len(self.free)

    @property
    def holders(self) -> Iterator[RequestState]:
        """All that hold a slot."""
        yield from self.prefilling.values()
        yield from self.denoising.values()
        yield from self.finished.values()

    @property
    def latest_class(self) -> int | None:
        """The least urgent priority among those that hold a slot."""
        return max(self.classes, default=None)

    @property
    def running(self) -> int:
        """Requests that have a canvas, or have just finished one and open the next."""
        return len(self.denoising) + len(self.finished)

    def take(self, state: RequestState) -> None:
        """Gives a waiting request a free slot."""
        state.slot = self.free.pop()
        state.stage = Stage.PREFILLING
        self.classes[state.request.priority] += 1
        self.prefilling[state.request_id] = state

    def canvas_opened(self, state: RequestState) -> None:
        """From the next step on the request's canvas takes part in every step."""
        self.prefilling.pop(state.request_id, None)
        self.finished.pop(state.request_id, None)
        state.stage = Stage.DENOISING
        self.denoising[state.request_id] = state
        self.looked_at += state.looked_at
        self._add_row(state)

    def stepped(self, state: RequestState) -> None:
        """The canvas took a step, after which its next one may be of another kind or length."""
        if state.steps_vary:
            self.canvas_load.remove(self.canvas_rows[state.request_id])
            self._add_row(state)

    def block_finished(self, state: RequestState) -> None:
        """The canvas is done and another one follows."""
        self._stop_denoising(state)
        self.finished[state.request_id] = state

    def give_back(self, state: RequestState) -> None:
        """The request leaves its slot."""
        if state.slot is None:
            raise BrokenBooks(f"request {state.request_id!r} left a slot it does not hold")
        self._stop_denoising(state)
        self.prefilling.pop(state.request_id, None)
        self.finished.pop(state.request_id, None)
        self.free.append(state.slot)
        state.slot = None
        priority = state.request.priority
        self.classes[priority] -= 1
        if not self.classes[priority]:
            del self.classes[priority]

    def check(self) -> None:
        """Raises BrokenBooks unless every slot is free or held once, and the sums are right."""
        holders = list(self.holders)
        slots = self.free + [state.slot for state in holders if state.slot is not None]
        if sorted(slots) != list(range(self.capacity)):
            raise BrokenBooks(f"slots {sorted(slots)} are free or held, of {self.capacity}")
        if Counter(state.request.priority for state in holders) != self.classes:
            raise BrokenBooks(f"the classes of those that hold slots are not {dict(self.classes)}")
        if self.canvas_rows.keys() != self.denoising.keys():
            raise BrokenBooks("canvas rows and denoising requests disagree")
        if Workload.of(self.canvas_rows.values()) != self.canvas_load:
            raise BrokenBooks("the canvas rows' sums are wrong")
        if sum(state.looked_at for state in self.denoising.values()) != self.looked_at:
            raise BrokenBooks(f"{self.looked_at} canvases are said to be looked at after every step")

    def _add_row(self, state: RequestState) -> None:
        row = step_row(state)
        self.canvas_rows[state.request_id] = row
        self.canvas_load.add(row)

    def _stop_denoising(self, state: RequestState) -> None:
        row = self.canvas_rows.pop(state.request_id, None)
        if row is not None:
            self.canvas_load.remove(row)
            self.looked_at -= state.looked_at
            del self.denoising[state.request_id]
