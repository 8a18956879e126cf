"""One replica's scheduler: takes requests in, plans steps, books what they came to."""

from dataclasses import replace
from math import inf

from easel.scheduler.books import Books
from easel.scheduler.compose import ComposePolicy
from easel.scheduler.composers import composer_of
from easel.scheduler.cost import CostModel, Workload
from easel.scheduler.draft import Draft
from easel.scheduler.errors import BrokenBooks, Draining, InvalidParameter, UnknownRequest
from easel.scheduler.forecast import Forecast
from easel.scheduler.life import AfterBlock, RequestState, Stage, begin
from easel.scheduler.messages import (
    BatchPlan,
    BlockEvent,
    CanvasResult,
    PhasePolicy,
    RefreshOrder,
    ReplicaDigest,
    ReplicaShape,
    StepResult,
)
from easel.scheduler.preemption import Preemption
from easel.scheduler.progress import event_of, hand_over_event
from easel.scheduler.queue import RefreshQueue, update_due
from easel.scheduler.recent_steps import RecentSteps
from easel.scheduler.request import Request
from easel.scheduler.summary import Summary
from easel.scheduler.totals import Totals


class LocalScheduler:
    """Bookkeeping of one replica. Not thread-safe; times come from the caller's clock.

    Steps alternate strictly: `plan`, the forward, `apply`. Requests may be submitted, cancelled
    and handed over at any time between the two. A plan that is never applied costs nothing: the
    next plan holds the same work again.
    """

    def __init__(
        self,
        shape: ReplicaShape,
        *,
        compose_policy: ComposePolicy = ComposePolicy.BALANCED,
        cost: CostModel | None = None,
        policy: PhasePolicy | None = None,
        queue: RefreshQueue | None = None,
    ) -> None:
        self.shape = shape
        self.cost = cost if cost is not None else CostModel()
        self._compose = composer_of(compose_policy)
        self._balances = compose_policy is ComposePolicy.BALANCED
        self.recent = RecentSteps()
        self._books = Books(shape)
        self._queue = queue if queue is not None else RefreshQueue()
        self._states: dict[str, RequestState] = {}
        self._active: tuple[str, ...] | None = ()  # ids of `_states`; None: to be made anew
        self._submitted = 0
        self._draining = False
        self._totals = Totals.zero()
        self._forecast = Forecast(self._totals)
        self._preemption = Preemption(self._books, self._queue, self._forecast)
        self._summary = Summary(self._books, self._queue, self._forecast)
        self._planned: tuple[BatchPlan | None, Workload] = (None, Workload())
        self._default_policy = self._within_limits(policy if policy is not None else PhasePolicy())
        self._policy = self._default_policy
        self._policy_expires = inf
        self._now = 0.0  # the last time that was told

    @property
    def has_work(self) -> bool:
        """Whether any request is waiting or running, so that the next plan is not None."""
        return bool(self._states)

    @property
    def idle(self) -> bool:
        return not self._states

    def submit(self, request: Request, now: float) -> None:
        """Queues a request.

        Raises Draining after `drain`, RequestTooLong when it could never fit, and InvalidParameter
        when its id is in use or its committed tokens cannot be resumed from.
        """
        self._now = now
        if self._draining:
            raise Draining("this replica")
        if request.request_id in self._states:
            raise InvalidParameter("request_id", request.request_id, "one that is not in use")
        state = begin(request, self.shape, now, self._submitted)
        self._submitted += 1
        self._states[request.request_id] = state
        self._active = None
        self._wait(state)

    def cancel(self, request_id: str) -> None:
        """Forgets a request and frees what it held; raises UnknownRequest."""
        self._remove(self._state_of(request_id))

    def hand_over(self, request_id: str) -> list[BlockEvent]:
        """Gives a request back, to go on at another replica; raises UnknownRequest.

        One that has no open canvas leaves at once: the list holds its last event, with
        FinishReason.HANDED_OVER, no block (index -1) and no tokens. One that has an open canvas leaves when
        that is finished: the list is empty, and `apply` returns the last event right behind the
        block's own, unless the block was the request's last and simply ends it.
        """
        state = self._state_of(request_id)
        if state.stage is Stage.DENOISING:
            state.after = AfterBlock.HAND_OVER
            return []
        self._remove(state)
        return [hand_over_event(state)]

    def drain(self) -> list[BlockEvent]:
        """Hands over all requests, as `hand_over` does, and takes no more from now on."""
        self._draining = True
        return [event for request_id in list(self._states) for event in self.hand_over(request_id)]

    def set_policy(self, policy: PhasePolicy, now: float) -> None:
        """Follows `policy` until its time to live is over; one older than the current is ignored."""
        if policy.epoch < self._current_policy(now).epoch:
            return
        self._policy = self._within_limits(policy)
        self._policy_expires = now + policy.time_to_live

    def plan(self, now: float) -> BatchPlan | None:
        """The next forward's rows; None when there is nothing to do.

        A request that waits may first take the slot of one that is less urgent.
        """
        self._now = now
        if not self._states:
            return None
        policy = self._current_policy(now)
        if self._queue and policy.preempt and self._balances and policy.order is RefreshOrder.SLACK:
            self._make_way(now)
        draft = Draft(self._books, policy, self.cost)
        self._compose(draft, self._queue, now)
        if draft.empty:
            return None
        plan = draft.plan()
        self._planned = (plan, draft.load)
        return plan

    def apply(self, plan: BatchPlan, result: StepResult, now: float) -> list[BlockEvent]:
        """Books what a plan's forward came to; returns the blocks it finished, and who leaves.

        Rows of requests that have left since the plan was made are passed over.
        """
        self._now = now
        planned, load = self._planned
        if plan is not planned:
            load = Workload.of(plan.rows)
        self.cost.observe(load, result.seconds / result.steps)
        self._totals.add_steps(result.steps, load, result.seconds, plan.predicted_seconds)
        self.recent.add(self._totals.steps, load, plan.predicted_seconds, result.seconds / result.steps)
        for row in plan.rows:
            if not row.kind.writes_pages:
                break
            state = self._holder(row.request_id, row.slot)
            if state is not None:
                self._wrote(state, row.end, now)
        events: list[BlockEvent] = []
        states, slots, started = self._states, self._books.slots, now - result.seconds
        for canvas in result.canvases:
            state = states.get(canvas.request_id)
            if state is None or state.slot != canvas.slot:
                continue
            state.path.append(canvas)
            if state.stage is not Stage.DENOISING:
                slots.canvas_opened(state)
                state.opened_at = started
            elif state.steps_vary:
                slots.stepped(state)
            if canvas.done:
                events += self._finish_block(state, canvas, now)
        return events

    def digest(self, replica_id: str, sequence: int) -> ReplicaDigest:
        """The replica's state for the central scheduler, as of the last time that was told."""
        if self._active is None:
            self._active = tuple(self._states)
        return self._summary.digest(
            replica_id,
            sequence,
            cost=self.cost,
            active=self._active,
            policy_epoch=self._policy.epoch,
            draining=self._draining,
            now=self._now,
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

    def _state_of(self, request_id: str) -> RequestState:
        state = self._states.get(request_id)
        if state is None:
            raise UnknownRequest(request_id)
        return state

    def _holder(self, request_id: str, slot: int) -> RequestState | None:
        """The request if it still holds the slot it had when the plan was made."""
        state = self._states.get(request_id)
        return state if state is not None and state.slot == slot else None

    def _make_way(self, now: float) -> None:
        """Has one request give up its slot, now or when its block is finished, if it should."""
        victim = self._preemption.victim(now)
        if victim is None:
            return
        if self._preemption.leaves_at_once(victim):
            self._preempt(victim, now)
        else:
            victim.after = AfterBlock.YIELD

    def _preempt(self, state: RequestState, now: float) -> None:
        """Back to those that wait. What it wrote stays in the prefix cache for as long as there is room."""
        self._books.leave(state)
        state.lose_slot(now)
        self._totals.preemptions += 1
        self._wait(state)

    def _wait(self, state: RequestState) -> None:
        update_due(state, self.cost, self._forecast.service_seconds(state))
        self._queue.push(state)

    def _wrote(self, state: RequestState, end: int, now: float) -> None:
        self._books.wrote(state, end)
        if state.stage is Stage.PREFILLING:
            update_due(state, self.cost, self._forecast.service_seconds(state))
            if not state.preemptions:
                state.prefilled_at = now

    def _finish_block(self, state: RequestState, canvas: CanvasResult, now: float) -> list[BlockEvent]:
        event = event_of(state, canvas, self.shape.eos_token_ids, now)
        self._totals.add_block(state.path, len(event.tokens))
        if event.finish is not None:
            output = state.output_tokens + len(event.tokens)
            self._totals.output_share.add(output / state.request.sampling.max_tokens)
            self._remove(state)
        elif state.after is AfterBlock.HAND_OVER:
            self._remove(state)
            return [event, hand_over_event(state)]
        else:
            self._books.slots.block_finished(state)
            state.finish_block(canvas.tokens)
            self._go_on(state, now)
        return [event]

    def _go_on(self, state: RequestState, now: float) -> None:
        if state.after is AfterBlock.YIELD and self._preemption.still_wanted(state, now):
            self._preempt(state, now)
            return
        state.after = AfterBlock.GO_ON
        if self._books.window is None:  # else the pages to commit it are lent by the next plan, in its order
            self._books.go_on(state, self._policy.tightening)

    def _remove(self, state: RequestState) -> None:
        del self._states[state.request_id]
        self._active = None
        if state.stage is Stage.WAITING:
            self._queue.discard(state)
        else:
            self._books.leave(state)
