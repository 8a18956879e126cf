"""Fakes shared by tests: a runner that needs no model, and a replica built on it."""

from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random

from easel.scheduler.compose import ComposePolicy
from easel.scheduler.cost import CostModel
from easel.scheduler.local import LocalScheduler
from easel.scheduler.messages import (
    BatchPlan,
    BlockEvent,
    CanvasResult,
    CostCoefficients,
    PhasePolicy,
    ReplicaDigest,
    ReplicaShape,
    Row,
    StepResult,
)
from easel.scheduler.phase import RowKind, SequenceLayout
from easel.scheduler.request import Request, SamplingParams
from easel.scheduler.window import window_pages

EOS = 1
FIRST_TOKEN = 10  # smaller ids mean something


def shape(slots: int = 4, pages: int = 64, page_size: int = 8, block: int = 4) -> ReplicaShape:
    return ReplicaShape(slots, pages, page_size, block, max_model_tokens=4096, eos_token_ids=frozenset({EOS}))


def windowed_shape(
    slots: int = 4, pages: int = 64, page_size: int = 8, window: int = 20, writes: int = 1
) -> ReplicaShape:
    """Causal prefix, and layers that see `window` tokens, with just the pages for `writes` rows at once."""
    plain = shape(slots, pages, page_size)
    held = window_pages(slots, window, page_size, plain.block_length, writes)
    return replace(plain, layout=SequenceLayout.CAUSAL, window=window, window_pages=held)


def bidirectional_shape(slots: int = 4, pages: int = 64, page_size: int = 8) -> ReplicaShape:
    return replace(shape(slots, pages, page_size), layout=SequenceLayout.BIDIRECTIONAL, partial=True)


def request(
    name: str,
    prompt: int | tuple[int, ...] = 6,
    max_tokens: int = 12,
    *,
    tenant: str = "",
    priority: int = 0,
    deadline: float | None = None,
) -> Request:
    """A request; a prompt given as a length gets tokens of its own."""
    if isinstance(prompt, int):
        draw = Random(name)
        prompt = tuple(draw.randrange(FIRST_TOKEN, 1000) for _ in range(prompt))
    return Request(
        name,
        prompt,
        SamplingParams(max_tokens=max_tokens),
        tenant=tenant,
        priority=priority,
        deadline_seconds=deadline,
    )


def digest(
    replica_id: str, sequence: int = 1, active: tuple[str, ...] = (), pages_available: int = 400
) -> ReplicaDigest:
    """The digest of a replica with 4 slots and 400 pages of 8 tokens."""
    return ReplicaDigest(
        replica_id=replica_id,
        sequence=sequence,
        slots=4,
        slots_used=min(4, len(active)),
        pages=400,
        pages_available=pages_available,
        page_size=8,
        block_length=4,
        waiting=max(0, len(active) - 4),
        waiting_prefill_tokens=0,
        active=active,
        steps_per_block=4.0,
        step_seconds=0.01,
        cost=CostCoefficients(5e-3, 1e-4, 1e-9, 1e-5),
        refresh_tokens=0,
        reuse_tokens=0,
        steps=0,
        blocks=0,
        committed_tokens=0,
        policy_epoch=0,
    )


@dataclass(slots=True)
class FakeRunner:
    """Answers plans as a model would, and checks what a runner may rely on.

    A block takes `min_steps` to `max_steps` steps. Its tokens follow from the request and the
    block's index alone, so they are the same whatever else runs. With `eos_share` above 0 that
    share of blocks contains an end-of-sequence.
    """

    shape: ReplicaShape
    min_steps: int = 1
    max_steps: int = 4
    eos_share: float = 0.0
    cost: CostCoefficients = field(default_factory=lambda: CostCoefficients(1e-3, 1e-5, 1e-9, 1e-6))
    pages: dict[int, tuple[int, ...]] = field(default_factory=dict[int, tuple[int, ...]])
    window_pages: dict[int, tuple[int, ...]] = field(default_factory=dict[int, tuple[int, ...]])
    canvases: dict[int, tuple[Row, int, int]] = field(default_factory=dict[int, tuple[Row, int, int]])

    def run(self, plan: BatchPlan) -> StepResult:
        kinds = [row.kind.writes_pages for row in plan.rows]
        assert kinds == sorted(kinds, reverse=True), "write rows come before canvas rows"
        rows = Counter((row.request_id, row.kind) for row in plan.rows)
        assert max(rows.values()) == 1, "a request has at most one row of a kind"
        results: list[CanvasResult] = []
        for row in plan.rows:
            if row.kind.writes_pages:
                self._write(row)
            else:
                self._check_geometry(row)
                results.append(self._denoise(row))
        return StepResult(tuple(results), CostModel(self.cost).of(plan.rows))

    def seen_by(self, row: Row) -> tuple[int, ...]:
        """What the row says or its page table holds of the tokens before the canvas."""
        if not self.shape.layout.shares_prefix:
            return row.tokens
        held = tuple(token for page in row.pages for token in self.pages.get(page, ()))
        return held[: row.canvas_start]

    def seen_in_window(self, row: Row) -> tuple[int, ...]:
        """What the row's window pages hold of the last tokens before the canvas that it sees."""
        first = max(0, row.canvas_start - self.shape.window + 1)
        held = tuple(token for page in row.window_pages for token in self.window_pages.get(page, ()))
        start = row.window_first * self.shape.page_size
        return held[first - start : row.canvas_start - start]

    def _check_geometry(self, row: Row) -> None:
        block, size = self.shape.block_length, self.shape.page_size
        if self.shape.layout is SequenceLayout.BLOCK_CAUSAL:
            assert row.start % block == 0
        if self.shape.layout.shares_prefix:
            assert row.start == row.canvas_start
            assert row.length == (self.canvases[row.slot][1] % block + 1 if row.partial else block)
            assert len(row.pages) * size >= row.start
        elif row.kind is RowKind.REUSE:
            assert (row.start, row.length) == (row.canvas_start, block)
        else:
            assert (row.start, row.length) == (0, row.span)
        if row.keeps and not self.shape.layout.shares_prefix:
            assert len(row.pages) * size >= row.span

    def _write(self, row: Row) -> None:
        assert len(row.tokens) == row.length
        assert row.length % self.shape.granularity == 0
        size = self.shape.page_size
        for position, token in enumerate(row.tokens, start=row.start):
            index, place = divmod(position, size)
            _put(self.pages, row.pages[index], place, token)
            if self.shape.window:
                _put(self.window_pages, row.window_pages[index - row.window_first], place, token)

    def _denoise(self, row: Row) -> CanvasResult:
        if row.kind is RowKind.OPEN:
            assert row.canvas is not None
            draw = Random(f"{row.request_id}/{row.canvas.block_index}/steps")
            self.canvases[row.slot] = (row, 0, draw.randint(self.min_steps, self.max_steps))
        opened, step, steps = self.canvases[row.slot]
        assert (opened.request_id, opened.canvas_start) == (row.request_id, row.canvas_start)
        step += 1
        self.canvases[row.slot] = (opened, step, steps)
        if step < steps:
            live = step % self.shape.block_length + 1
            return CanvasResult(
                row.request_id,
                row.slot,
                False,
                step,
                self.shape.block_length,
                1.0,
                live=live,
                entropy_sum=float(step),
            )
        block = self._block_of(opened)
        return CanvasResult(row.request_id, row.slot, True, step, 0, 1.0, block, entropy_sum=float(step))

    def _block_of(self, opened: Row) -> tuple[int, ...]:
        assert opened.canvas is not None
        draw = Random(f"{opened.request_id}/{opened.canvas.block_index}/tokens")
        tokens = [draw.randrange(FIRST_TOKEN, 1000) for _ in range(self.shape.block_length)]
        if draw.random() < self.eos_share:
            tokens[draw.randrange(self.shape.block_length)] = EOS
        known = opened.canvas.known
        return (*known, *tokens[len(known) :])


def _put(pages: dict[int, tuple[int, ...]], page: int, place: int, token: int) -> None:
    before = pages.get(page, ())[:place]
    assert len(before) == place, "a page is written from its beginning"
    pages[page] = (*before, token)


class FakeReplica:
    """A LocalScheduler driven by a FakeRunner on a clock of its own. Books are checked every step."""

    def __init__(
        self,
        shape: ReplicaShape,
        compose_policy: ComposePolicy = ComposePolicy.BALANCED,
        policy: PhasePolicy | None = None,
        *,
        min_steps: int = 1,
        max_steps: int = 4,
        eos_share: float = 0.0,
    ) -> None:
        self.runner = FakeRunner(shape, min_steps, max_steps, eos_share)
        self.scheduler = LocalScheduler(
            shape, compose_policy=compose_policy, cost=CostModel(self.runner.cost), policy=policy
        )
        self.now = 0.0
        self.plans: list[BatchPlan] = []
        self.events: dict[str, list[BlockEvent]] = {}
        self._texts: dict[str, tuple[int, ...]] = {}  # prefix and output so far, by request id

    def submit(self, request: Request) -> None:
        self.scheduler.submit(request, self.now)
        self.events[request.request_id] = []
        self._texts[request.request_id] = request.prefix

    def hand_over(self, request_id: str) -> None:
        """Gives a request back, at once or at the end of its block."""
        self._take(self.scheduler.hand_over(request_id))

    def step(self) -> BatchPlan | None:
        """Plans, runs and applies one step."""
        plan = self.scheduler.plan(self.now)
        if plan is None:
            return None
        self.finish(plan)
        return plan

    def finish(self, plan: BatchPlan) -> None:
        """Runs and applies a plan made before; every canvas must see its own request's prefix."""
        result = self.runner.run(plan)
        for row in plan.rows:
            if not row.kind.writes_pages:
                text = self._texts[row.request_id][: row.canvas_start]
                seen = self.runner.seen_by(row)
                assert seen == (text[-1:] if len(seen) == 1 else text)
                if shape_window := self.runner.shape.window:
                    assert self.runner.seen_in_window(row) == text[max(0, len(text) - shape_window + 1) :]
        self.now += result.seconds
        self._take(self.scheduler.apply(plan, result, self.now))
        self.plans.append(plan)
        self.scheduler.check()

    def _take(self, events: list[BlockEvent]) -> None:
        for event in events:
            self.events[event.request_id].append(event)
            self._texts[event.request_id] += event.tokens

    def drain(self, limit: int = 10_000) -> list[BatchPlan]:
        """Steps until there is no work; fails when that takes more than `limit` steps."""
        first = len(self.plans)
        while self.scheduler.has_work:
            assert self.step() is not None, "work is left and nothing is planned"
            assert len(self.plans) - first <= limit, "the work does not come to an end"
        return self.plans[first:]

    def output(self, request_id: str) -> tuple[int, ...]:
        return tuple(token for event in self.events[request_id] for token in event.tokens)
