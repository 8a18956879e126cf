"""One replica's scheduler: takes requests in, plans steps, books what they came to."""

from dataclasses import replace
from math import inf

from easel.scheduler.books import Books
from easel.scheduler.compose import ComposePolicy
from easel.scheduler.composers import composer_of
from easel.scheduler.cost import CostModel, Workload
from easel.scheduler.errors import BrokenBooks, InvalidParameter, UnknownRequest
from easel.scheduler.life import RequestState, Stage, begin
from easel.scheduler.messages import (
    BatchPlan,
    BlockEvent,
    CanvasResult,
    PhasePolicy,
    ReplicaDigest,
    ReplicaShape,
    StepResult,
)
from easel.scheduler.progress import event_of
from easel.scheduler.queue import RefreshQueue, update_due
from easel.scheduler.request import Request
from easel.scheduler.totals import Totals


class LocalScheduler:
    """Bookkeeping of one replica. Not thread-safe; times come from the caller's clock.

    Steps alternate strictly: `plan`, the forward, `apply`. Requests may be submitted and
    cancelled at any time between the two. A plan that is never applied costs nothing: the next
    plan holds the same work again.
    """

    def __init__(
        self,
        shape: ReplicaShape,
        *,
        compose_policy: ComposePolicy = ComposePolicy.BALANCED,
        cost: CostModel | None = None,
        policy: PhasePolicy | None = None,
    ) -> None:
        self.shape = shape
        self.cost = cost if cost is not None else CostModel()
        self._compose = composer_of(compose_policy)
        self._books = Books(shape)
        self._queue = RefreshQueue()
        self._states: dict[str, RequestState] = {}
        self._submitted = 0
        self._totals = Totals.zero()
        self._default_policy = self._within_limits(policy if policy is not None else PhasePolicy())
        self._policy = self._default_policy
        self._policy_expires = inf

    @property
    def has_work(self) -> bool:
        """Whether any request is waiting or running, so that the next plan is not None."""
        return bool(self._states)

    @property
    def idle(self) -> bool:
        return not self._states

    def submit(self, request: Request, now: float) -> None:
        """Queues a request.

        Raises RequestTooLong when it could never fit, and InvalidParameter when its id is in use
        or its committed tokens cannot be resumed from.
        """
        if request.request_id in self._states:
            raise InvalidParameter("request_id", request.request_id, "one that is not in use")
        state = begin(request, self.shape, now, self._submitted)
        update_due(state, self.cost)
        self._submitted += 1
        self._states[request.request_id] = state
        self._queue.push(state)

    def cancel(self, request_id: str) -> None:
        """Forgets a request and frees what it held; raises UnknownRequest."""
        state = self._states.get(request_id)
        if state is None:
            raise UnknownRequest(request_id)
        self._remove(state)

    def set_policy(self, policy: PhasePolicy, now: float) -> None:
        """Follows `policy` until its time to live is over; one older than the current is ignored."""
        if policy.epoch < self._current_policy(now).epoch:
            return
        self._policy = self._within_limits(policy)
        self._policy_expires = now + policy.time_to_live

    def plan(self, now: float) -> BatchPlan | None:
        """The next forward's rows; None when there is nothing to do."""
        if not self._states:
            return None
        plan = self._compose(self._books, self._queue, self._current_policy(now), self.cost, now)
        return plan if plan.rows else None

    def apply(self, plan: BatchPlan, result: StepResult, now: float) -> list[BlockEvent]:
        """Books what a plan's forward came to; returns the blocks it finished.

        Rows of requests that were cancelled since the plan was made are passed over.
        """
        load = Workload.of(plan.rows)
        self.cost.observe(load, result.seconds / result.steps)
        self._totals.add_steps(result.steps, load, result.seconds)
        for row in plan.rows:
            if not row.kind.writes_pages:
                break
            state = self._holder(row.request_id, row.slot)
            if state is not None:
                self._wrote(state, row.end, now)
        events: list[BlockEvent] = []
        for canvas in result.canvases:
            state = self._holder(canvas.request_id, canvas.slot)
            if state is not None:
                self._stepped(state, canvas, now - result.seconds)
                if canvas.done:
                    events.append(self._finish_block(state, canvas, now))
        return events

    def digest(self, replica_id: str, sequence: int) -> ReplicaDigest:
        """The replica's state for the central scheduler."""
        slots, totals = self._books.slots, self._totals
        prefilling = sum(state.prefill_left for state in slots.prefilling.values())
        return ReplicaDigest(
            replica_id=replica_id,
            sequence=sequence,
            slots=self.shape.slots,
            slots_used=slots.used,
            pages=self.shape.pages,
            pages_available=self._books.pool.available,
            page_size=self.shape.page_size,
            block_length=self.shape.block_length,
            waiting=len(self._queue),
            waiting_prefill_tokens=self._queue.prefill_tokens + prefilling,
            active=tuple(self._states),
            steps_per_block=totals.steps_per_block.value,
            step_seconds=totals.step_seconds.value,
            cost=self.cost.coefficients,
            refresh_tokens=totals.refresh_tokens,
            reuse_tokens=totals.reuse_tokens,
            steps=totals.steps,
            blocks=totals.blocks,
            committed_tokens=totals.committed_tokens,
            policy_epoch=self._policy.epoch,
            layout=self.shape.layout,
        )

    def check(self) -> None:
        """Raises BrokenBooks unless slots, pages and references balance."""
        self._books.check(self._states.values())
        if len(self._queue) + self._books.slots.used != len(self._states):
            raise BrokenBooks("a request neither waits nor holds a slot")

    def _current_policy(self, now: float) -> PhasePolicy:
        if now > self._policy_expires:
            self._policy = self._default_policy
            self._policy_expires = inf
        return self._policy

    def _within_limits(self, policy: PhasePolicy) -> PhasePolicy:
        """A policy knows what a replica can afford in time; the replica knows what it has memory for."""
        return replace(policy, refresh_tokens=min(policy.refresh_tokens, self.shape.refresh_limit))

    def _holder(self, request_id: str, slot: int) -> RequestState | None:
        """The request if it still holds the slot it had when the plan was made."""
        state = self._states.get(request_id)
        return state if state is not None and state.slot == slot else None

    def _wrote(self, state: RequestState, end: int, now: float) -> None:
        self._books.wrote(state, end)
        if state.stage is Stage.PREFILLING:
            update_due(state, self.cost)
            state.prefilled_at = now

    def _stepped(self, state: RequestState, canvas: CanvasResult, started: float) -> None:
        state.step, state.live = canvas.step, canvas.live
        if state.stage is Stage.DENOISING:
            self._books.slots.stepped(state)
        else:
            self._books.slots.canvas_opened(state)
            state.opened_at = started
        state.entropy_sum = canvas.entropy_sum

    def _finish_block(self, state: RequestState, canvas: CanvasResult, now: float) -> BlockEvent:
        event = event_of(state, canvas, self.shape.eos_token_ids, now)
        self._totals.add_block(event.steps, len(event.tokens))
        if event.finish is not None:
            self._remove(state)
        else:
            self._books.slots.block_finished(state)
            state.finish_block(canvas.tokens)
        return event

    def _remove(self, state: RequestState) -> None:
        del self._states[state.request_id]
        if state.stage is Stage.WAITING:
            self._queue.discard(state)
        else:
            self._books.leave(state)
