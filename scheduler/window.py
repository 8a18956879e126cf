"""Pages of sliding-window layers: a request holds those that its next tokens can still see."""

from collections.abc import Sequence
from dataclasses import replace

from easel.scheduler.errors import BrokenBooks
from easel.scheduler.life import RequestState
from easel.scheduler.messages import ReplicaShape
from easel.scheduler.pages import PagePool
from easel.scheduler.prefix_cache import PrefixCache

FEWEST_COMMITS, COMMIT_SHARE = 8, 16


def longest_write(page_size: int, block_length: int) -> int:
    """Tokens of the longest write row: a block, which commits need anyway, in whole pages.

    Longer prefill chunks would need pages that only prefill ever fills.
    """
    return -(-block_length // page_size) * page_size


def window_share(window: int, page_size: int) -> int:
    """The most pages that hold what a token sees, itself included, wherever it stands in its page."""
    return -(-(window - 1) // page_size) + 1


def window_pages(slots: int, window: int, page_size: int, block_length: int, writes: int) -> int:
    """Pages of a replica of which `writes` longest rows can be written in one forward.

    A row of n whole pages makes a request hold at most n more than its share.
    """
    return slots * window_share(window, page_size) + writes * (
        longest_write(page_size, block_length) // page_size
    )


def commits_at_once(slots: int) -> int:
    """Finished blocks that one forward has memory for: of one slot in sixteen, and of eight at least.

    No more finish in a step, on average, as long as blocks take sixteen steps.
    """
    return min(slots, max(FEWEST_COMMITS, -(-slots // COMMIT_SHARE)))


def with_window(shape: ReplicaShape, window: int) -> ReplicaShape:
    """A replica of a model with layers that see `window` tokens: with pages for those, and a commit limit.

    One forward may then write all its commits and the newcomers' refresh quota, each slot one row.
    """
    chunk = longest_write(shape.page_size, shape.block_length)
    commits = commits_at_once(shape.slots)
    writes = min(shape.slots, commits - (-shape.refresh_limit // chunk))
    pages = window_pages(shape.slots, window, shape.page_size, shape.block_length, writes)
    return replace(shape, window=window, window_pages=pages, commit_limit=commits)


class WindowBooks:
    """The second page table of models with sliding-window layers.

    Each slot has a share of pages, for what a token can see. It is enough to write one token after
    another, a page at a time; a longer row needs pages beyond the share, because its first token sees
    what its last one does not. Those are lent by a spare that all slots have in common, and go back
    as soon as the row is written. So whoever lacks the spare waits for a forward, and no more:
    prefill goes on in shorter rows meanwhile, and every row that has been lent pages can be written.

    Pages that several requests share count for each of them: sharing saves computation here, not
    memory. So a page that one request drops and another one still holds can never leave a third
    without the page it was promised. Pages whose content is named stay idle when they are given
    back, to be evicted first.
    """

    def __init__(self, shape: ReplicaShape) -> None:
        """Raises BrokenBooks for a shape whose spare is not enough for one row."""
        self._window = shape.window
        self._page_size = shape.page_size
        self._share = window_share(shape.window, shape.page_size)
        self._spare = shape.window_pages - shape.slots * self._share
        self._lent = 0  # pages that requests hold beyond their share
        least = window_pages(shape.slots, shape.window, shape.page_size, shape.block_length, writes=1)
        if shape.window_pages < least:
            raise BrokenBooks(f"{shape.window_pages} window pages for {shape.slots} slots, not {least}")
        self.cache = PrefixCache()
        self.pool = PagePool(shape.window_pages, forget=self.cache.forget)

    def room(self, state: RequestState) -> int:
        """Tokens that the request could write next; at least one."""
        pages = max(self._share, len(state.window_pages)) + self._spare - self._lent
        return (state.window_first + pages) * self._page_size - state.written

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
        """Shares what the window sees of the first `pages` pages, and promises the rest of the share."""
        first = self._first_seen(pages * self._page_size)
        state.window_first = first
        state.window_pages = self.cache.match(state.chain[first:pages])
        if len(state.window_pages) != pages - first:
            raise BrokenBooks(f"request {state.request_id!r} was let in on window pages that are not cached")
        for page in state.window_pages:
            self.pool.share(page)
        self.pool.reserve(self._share - len(state.window_pages))
        state.window_table = tuple(state.window_pages)

    def extend(self, state: RequestState, end: int) -> bool:
        """Gives the request pages for all positions before `end`, first out of its share.

        False, with nothing changed, when the spare is lent out.
        """
        held = len(state.window_pages)
        missing = -(-end // self._page_size) - state.window_first - held
        if missing <= 0:
            return True
        lent = held + missing - max(held, self._share)
        if lent > 0:
            if self._lent + lent > self._spare:
                return False
            self._lent += lent
            self.pool.reserve(lent)
        state.window_pages.extend(self.pool.allocate(missing))
        state.window_table = tuple(state.window_pages)
        return True

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
        lent = min(len(unseen), max(0, len(state.window_pages) - self._share))
        self._lent -= lent
        for page in unseen:
            self.pool.release(page)
        self.pool.reserve(len(unseen) - lent)
        state.window_pages = state.window_pages[len(unseen) :]
        state.window_table = tuple(state.window_pages)
        state.window_first = first

    def leave(self, state: RequestState) -> None:
        """Takes back the pages and the promise."""
        held = len(state.window_pages)
        self.pool.unreserve(max(0, self._share - held))
        self._lent -= max(0, held - self._share)
        for page in reversed(state.window_pages):
            self.pool.release(page)
        state.window_pages = []
        state.window_table = ()
        state.window_first = 0

    def check(self, states: Sequence[RequestState]) -> None:
        """Raises BrokenBooks unless pages, promises, loans and references balance over `states`."""
        self.pool.check()
        self.cache.check()
        holders = [state for state in states if state.slot is not None]
        references = [0] * self.pool.capacity
        for state in holders:
            for page in state.window_pages:
                references[page] += 1
        promised = sum(max(0, self._share - len(state.window_pages)) for state in holders)
        lent = sum(references) + promised - self._share * len(holders)
        if promised != self.pool.reserved or lent != self._lent or lent > self._spare:
            raise BrokenBooks(
                f"{promised} window pages promised and {lent} of {self._spare} lent to {len(holders)} "
                f"requests; the books say {self.pool.reserved} and {self._lent}"
            )
        for page, count in enumerate(references):
            if count != self.pool.references(page):
                raise BrokenBooks(
                    f"window page {page} has {self.pool.references(page)} references, not {count}"
                )

    def _first_seen(self, position: int) -> int:
        """The first page that the token at `position`, or any later one, can see a token of."""
        return max(0, position - self._window + 1) // self._page_size
