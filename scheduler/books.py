"""Who holds what on one replica: slots, pages and the prefix cache, moved together."""

from collections.abc import Iterable

from easel.scheduler.cost import NO_LIMIT
from easel.scheduler.errors import BrokenBooks
from easel.scheduler.life import RequestState
from easel.scheduler.messages import ReplicaShape, Tightening
from easel.scheduler.pages import PagePool
from easel.scheduler.prefix_cache import PrefixCache, page_hash, salt_of
from easel.scheduler.rows import continuation
from easel.scheduler.slots import SlotTable
from easel.scheduler.window import WindowBooks, longest_write


class Books:
    """Lets requests in, gives them pages, and takes everything back when they leave."""

    def __init__(self, shape: ReplicaShape) -> None:
        self.shape = shape
        self.slots = SlotTable(shape.slots)
        self.cache = PrefixCache()
        self.pool = PagePool(shape.pages, forget=self.cache.forget)
        self.window = WindowBooks(shape) if shape.window else None
        self._longest_write = longest_write(shape.page_size, shape.block_length)

    def admit(self, state: RequestState, now: float) -> bool:
        """Gives a waiting request a slot, the cached pages of its prefix, and a promise of the rest.

        False, with nothing changed, when there is no slot or the pages it may come to need
        could not all be had.
        """
        if not self.slots.free:
            return False
        matched = self._cached(state)
        if self._lacking(state, matched) > 0:
            return False
        missing = state.pages_needed - len(matched)
        for page in matched:
            self.pool.share(page)
        self.pool.reserve(missing)
        state.promised = missing
        state.pages = matched
        state.page_table = tuple(matched)
        state.named = len(matched)
        state.written = len(matched) * self.shape.page_size
        if not state.preemptions:
            state.cached_tokens = state.written
            state.admitted_at = state.prefilled_at = now
        if self.window is not None:
            self.window.admit(state, len(matched))
        self.slots.take(state)
        if not state.shares_prefix:
            self.extend(state, state.pages_needed * self.shape.page_size)
        return True

    def lacking(self, state: RequestState) -> int:
        """Pages that are missing for a waiting request to be let in; none if 0 or less."""
        return self._lacking(state, self._cached(state))

    def gain(self, state: RequestState) -> int:
        """Pages that could be promised to others if the request left."""
        return state.promised + sum(1 for page in state.pages if self.pool.references(page) == 1)

    def go_on(self, state: RequestState, valve: Tightening | None) -> bool:
        """Makes up the continuation of a request whose block is finished, with the pages to commit it.

        False, with nothing changed, when window pages for it are not to be had now.
        """
        if state.to_commit and not self.extend(state, state.canvas_start):
            return False
        state.continuation = continuation(state, valve)
        return True

    def write_room(self, state: RequestState) -> int:
        """Tokens that the request's next write row may hold, whatever is left of its prefix."""
        if self.window is None:
            return NO_LIMIT
        return min(self._longest_write, self.window.room(state))

    def _cached(self, state: RequestState) -> list[int]:
        """Pages of the longest part of the prefix that all layers have cached."""
        matched = self.cache.match(state.chain)
        return matched if self.window is None else matched[: self.window.reach(state.chain, len(matched))]

    def _lacking(self, state: RequestState, matched: list[int]) -> int:
        """A page that is idle and matched counts as taken: it cannot be promised any more."""
        idle = sum(1 for page in matched if self.pool.references(page) == 0)
        return state.pages_needed - len(matched) + idle - self.pool.available

    def extend(self, state: RequestState, end: int) -> bool:
        """Gives the request pages for all positions before `end`, out of its promise.

        False, with nothing changed, when window pages that it would be lent are not to be had now.
        """
        if self.window is not None and not self.window.extend(state, end):
            return False
        missing = -(-end // self.shape.page_size) - len(state.pages)
        if missing <= 0:
            return True
        if missing > state.promised:
            raise BrokenBooks(f"request {state.request_id!r} needs more pages than it was promised")
        state.promised -= missing
        state.pages.extend(self.pool.allocate(missing))
        state.page_table = tuple(state.pages)
        return True

    def wrote(self, state: RequestState, end: int) -> None:
        """Positions before `end` are in pages now; pages that became full are offered to the cache."""
        size = self.shape.page_size
        state.written = end
        state.continuation = None  # it says what is to be written
        for index in range(state.named, end // size):
            if index == len(state.chain):
                parent = state.chain[-1] if state.chain else salt_of(state.request.tenant)
                state.chain.append(page_hash(parent, state.tokens[index * size : (index + 1) * size]))
            page = state.pages[index]
            if self.cache.insert(state.chain[index], page):
                self.pool.keep(page)
            if self.window is not None:
                self.window.name(state, index)
            state.named = index + 1
        if self.window is not None:
            self.window.drop_unseen(state)

    def leave(self, state: RequestState) -> None:
        """Takes back the slot, the pages and the promise."""
        self.slots.give_back(state)
        self.pool.unreserve(state.promised)
        state.promised = 0
        # Last page first: the cache then evicts the ends of chains before their beginnings.
        for page in reversed(state.pages):
            self.pool.release(page)
        state.pages = []
        state.page_table = ()
        if self.window is not None:
            self.window.leave(state)

    def check(self, states: Iterable[RequestState]) -> None:
        """Raises BrokenBooks unless slots, pages, promises and references balance over `states`."""
        states = list(states)
        if self.window is not None:
            self.window.check(states)
        self.slots.check()
        self.pool.check()
        self.cache.check()
        references = [0] * self.pool.capacity
        promised = 0
        for state in states:
            promised += state.promised
            for page in state.pages:
                references[page] += 1
        if promised != self.pool.reserved:
            raise BrokenBooks(f"{promised} pages are promised and {self.pool.reserved} reserved")
        for page, count in enumerate(references):
            if count != self.pool.references(page):
                raise BrokenBooks(f"page {page} has {self.pool.references(page)} references, {count} held")
