"""A batch plan in the making: rows added so far, what they cost, and what still fits."""

from easel.scheduler.books import Books
from easel.scheduler.cost import CostModel, Workload
from easel.scheduler.life import Continuation, RequestState
from easel.scheduler.messages import BatchPlan, PhasePolicy, Row
from easel.scheduler.rows import open_row, opening_size, prefill_row


class Draft:
    """Rows of one forward. Slots and pages are given out as rows are added; nothing else changes."""

    def __init__(self, books: Books, policy: PhasePolicy, cost: CostModel) -> None:
        self.books = books
        self.policy = policy
        self.load = Workload()
        self.newcomers = 0  # that got a row
        self._cost = cost
        self._block = books.shape.block_length
        self._granularity = books.shape.granularity
        self._writes: list[Row] = []
        self._canvases: list[Row] = []
        self._seconds = cost.coefficients.constant
        self._refresh_tokens = 0
        self._refreshed = False
        self._opens = 0  # by newcomers

    @property
    def empty(self) -> bool:
        return not (self._writes or self._canvases)

    @property
    def quota_left(self) -> int:
        """Refresh tokens the policy still allows; the first newcomer's block is always allowed."""
        left = self.policy.refresh_tokens - self._refresh_tokens
        return left if self.newcomers else max(left, self._block)

    def add_running_canvases(self) -> None:
        """A row for every canvas that is being denoised."""
        slots = self.books.slots
        self._canvases.extend(slots.canvas_rows.values())
        self.load.merge(slots.canvas_load)
        self._sum_up()

    def add_finished_blocks(self) -> None:
        """For every block that was finished, its commit together with the next canvas's opening.

        Those for which one forward has no memory wait for the next, the last to finish first.
        """
        finished = self.books.slots.finished
        if not finished:
            return
        self._refreshed = True
        commits, valve = self.books.shape.commit_limit, self.policy.tightening
        for state in finished.values():
            if not commits and state.to_commit:
                continue
            ahead = state.continuation
            if ahead is None or ahead.valve is not valve:
                if not self.books.go_on(state, valve):
                    continue
                ahead = state.continuation
            if ahead is not None:
                commits -= self._go_on(ahead)
        self._sum_up()

    def room(self, start: int) -> int:
        """Tokens in whole blocks that can be written from `start` on within quota and target.

        One block is always allowed when no newcomer has a row yet, so refresh never stands still.
        """
        seconds = self.policy.target_seconds - self._seconds
        tokens = min(self.quota_left, self._cost.chunk_within(seconds, start))
        if not self.newcomers:
            tokens = max(tokens, self._block)
        return tokens - tokens % self._granularity

    def advance(self, state: RequestState, room: int) -> bool:
        """Prefills up to `room` tokens of a request that has a slot, and opens its canvas if that fits.

        False when it got no row.
        """
        left = state.prefill_left
        chunk = min(left, room, self.books.write_room(state))
        if chunk > 0:
            self.books.extend(state, state.written + chunk)
            row = prefill_row(state, chunk)
            self._writes.append(row)
            self._count(row)
        opened = chunk == left and self._opens_for(state, room, chunk)
        if opened:
            row = open_row(state, self.policy.tightening)
            self._canvases.append(row)
            self._count(row)
            self._opens += 1
        advanced = opened or chunk > 0
        self.newcomers += advanced
        return advanced

    def plan(self) -> BatchPlan:
        rows = (*self._writes, *self._canvases)
        return BatchPlan(rows, self._seconds, max(1, self.policy.quantum) if self._steady else 1)

    @property
    def _steady(self) -> bool:
        """Whether the same forward is due again and again until a canvas of it is finished."""
        slots = self.books.slots
        return not (self._refreshed or slots.looked_at or slots.prefilling or slots.finished)

    def _go_on(self, ahead: Continuation) -> int:
        """Adds a finished block's rows; the number of commits among them."""
        if ahead.commit is None or self.policy.fuse_commits:
            self._canvases.append(ahead.opening)
            self.load.merge(ahead.load)
        else:
            self.load.add(ahead.commit)
        if ahead.commit is None:
            return 0
        self._writes.append(ahead.commit)
        return 1

    def _opens_for(self, state: RequestState, room: int, chunk: int) -> bool:
        """Whether a newcomer's canvas may open now that `chunk` of the `room` tokens are taken."""
        if self._opens >= max(1, self.policy.opens_per_step):
            return False
        if not self.newcomers and chunk == 0:
            return True
        tokens, pairs = opening_size(state)
        seconds = self._seconds + self._cost.added_by(tokens, pairs, tokens)
        return room >= chunk + tokens and seconds <= self.policy.target_seconds

    def _count(self, row: Row) -> None:
        self.load.add(row)
        self._refreshed = True
        self._sum_up()

    def _sum_up(self) -> None:
        self._refresh_tokens = self.load.tokens - self.load.reuse_tokens
        self._seconds = self._cost.of_load(self.load)
