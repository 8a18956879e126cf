"""Pages of sliding-window layers: a request holds those that its next tokens can still see."""

from collections.abc import Sequence

from easel.scheduler.errors import BrokenBooks
from easel.scheduler.life import RequestState
from easel.scheduler.messages import ReplicaShape
from easel.scheduler.pages import PagePool
from easel.scheduler.prefix_cache import PrefixCache


def longest_write(page_size: int, block_length: int) -> int:
    """Tokens of the longest write row: a block, which commits need anyway, in whole pages.

    Longer prefill chunks would need pages promised to every slot that only prefill ever fills.
    """
    return -(-block_length // page_size) * page_size


def window_pages_per_request(window: int, page_size: int, block_length: int) -> int:
    """The most pages a request ever holds: what a chunk's first token sees, and the chunk itself."""
    chunk = longest_write(page_size, block_length)
    return -(-(window - 1) // page_size) + -(-chunk // page_size) + 1


class WindowBooks:
    """The second page table of models with sliding-window layers.

    Each request is promised the most it can ever hold, shared pages included: sharing saves
    computation here, not memory. So a page that one request drops and another one still holds
    can never leave a third without the page it was promised. Pages out of sight go back at once;
    those whose content is named stay idle, to be evicted first.
    """

    def __init__(self, shape: ReplicaShape) -> None:
        self._window = shape.window
        self._page_size = shape.page_size
        self._share = window_pages_per_request(shape.window, shape.page_size, shape.block_length)
        self._promised = 0  # pages of all requests, held ones included
        self.cache = PrefixCache()
        self.pool = PagePool(shape.window_pages, forget=self.cache.forget)

    @property
    def has_room(self) -> bool:
        """Whether one more request can be let in."""
        return self._promised + self._share <= self.pool.capacity

    def reach(self, chain: Sequence[bytes], pages: int) -> int:
        """The most of the first `pages` pages after which what the window sees is cached."""
        best, missing = 0, -1
        for index, digest in enumerate(chain[:pages]):
            if digest not in self.cache:
                missing = index
            elif missing < self._first_seen((index + 1) * self._page_size):
                best = index + 1
        return best

    def admit(self, state: RequestState, pages: int) -> None:
        """Shares what the window sees of the first `pages` pages, and promises the rest."""
        first = self._first_seen(pages * self._page_size)
        state.window_first = first
        state.window_pages = self.cache.match(state.chain[first:pages])
        if len(state.window_pages) != pages - first:
            raise BrokenBooks(f"request {state.request_id!r} was let in on window pages that are not cached")
        for page in state.window_pages:
            self.pool.share(page)
        self.pool.reserve(self._share - len(state.window_pages))
        self._promised += self._share
        state.window_table = tuple(state.window_pages)

    def extend(self, state: RequestState, end: int) -> None:
        """Gives the request pages for all positions before `end`, out of its promise."""
        missing = -(-end // self._page_size) - state.window_first - len(state.window_pages)
        if missing <= 0:
            return
        if len(state.window_pages) + missing > self._share:
            raise BrokenBooks(f"request {state.request_id!r} needs more window pages than it was promised")
        state.window_pages.extend(self.pool.allocate() for _ in range(missing))
        state.window_table = tuple(state.window_pages)

    def name(self, state: RequestState, index: int) -> None:
        """Offers the sequence's page `index`, which is full, to the cache."""
        place = index - state.window_first
        if place >= 0 and self.cache.insert(state.chain[index], state.window_pages[place]):
            self.pool.keep(state.window_pages[place])

    def drop_unseen(self, state: RequestState) -> None:
        """Gives back the pages that no later token of the request can see."""
        first = self._first_seen(state.written)
        unseen = state.window_pages[: first - state.window_first]
        if not unseen:
            return
        for page in unseen:
            self.pool.release(page)
        self.pool.reserve(len(unseen))
        state.window_pages = state.window_pages[len(unseen) :]
        state.window_table = tuple(state.window_pages)
        state.window_first = first

    def leave(self, state: RequestState) -> None:
        """Takes back the pages and the promise."""
        self.pool.unreserve(self._share - len(state.window_pages))
        self._promised -= self._share
        for page in reversed(state.window_pages):
            self.pool.release(page)
        state.window_pages = []
        state.window_table = ()
        state.window_first = 0

    def check(self, states: Sequence[RequestState]) -> None:
        """Raises BrokenBooks unless pages, promises and references balance over `states`."""
        self.pool.check()
        self.cache.check()
        holders = [state for state in states if state.slot is not None]
        references = [0] * self.pool.capacity
        for state in holders:
            for page in state.window_pages:
                references[page] += 1
        held = sum(references)
        if self._promised != self._share * len(holders) or self.pool.reserved != self._promised - held:
            raise BrokenBooks(
                f"{self._promised} window pages promised, {held} held, to {len(holders)} requests"
            )
        for page, count in enumerate(references):
            if count != self.pool.references(page):
                raise BrokenBooks(
                    f"window page {page} has {self.pool.references(page)} references, not {count}"
                )

    def _first_seen(self, position: int) -> int:
        """The first page that the token at `position`, or any later one, can see a token of."""
        return max(0, position - self._window + 1) // self._page_size
