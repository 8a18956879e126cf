"""Lifetime of pages: which are free, referenced, promised, or idle but worth keeping."""

from collections import OrderedDict
from collections.abc import Callable

from easel.scheduler.errors import BrokenBooks


class PagePool:
    """Owner of the page ids [0, capacity).

    A page is free, referenced (by one request or several), or idle: kept for its content with
    nobody referencing it. Idle pages are evicted least recently used first, only when no page
    is free. A reservation promises pages without naming them, so that a request that was let in
    never lacks one: `reserved <= free + idle` always holds.
    """

    def __init__(self, capacity: int, forget: Callable[[list[int]], None]) -> None:
        """`forget(pages)` is called when idle pages are evicted and their content given up."""
        self.capacity = capacity
        self.reserved = 0
        self._forget = forget
        self._free = list(range(capacity - 1, -1, -1))
        self._references = [0] * capacity
        self._kept: set[int] = set()
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def available(self) -> int:
        """Pages that can still be promised."""
        return len(self._free) + len(self._idle) - self.reserved

    @property
    def referenced(self) -> int:
        return self.capacity - len(self._free) - len(self._idle)

    def references(self, page: int) -> int:
        return self._references[page]

    def reserve(self, count: int) -> None:
        """Promises `count` pages; raises BrokenBooks when they are not available."""
        if count > self.available:
            raise BrokenBooks(f"{count} pages reserved with {self.available} available")
        self.reserved += count

    def unreserve(self, count: int) -> None:
        if count > self.reserved:
            raise BrokenBooks(f"{count} pages unreserved with {self.reserved} reserved")
        self.reserved -= count

    def allocate(self, count: int = 1) -> list[int]:
        """Pages out of a reservation made before, referenced once each."""
        self.unreserve(count)
        free = min(count, len(self._free))
        pages = [self._free.pop() for _ in range(free)]
        if free < count:
            pages += self._evict(count - free)
        for page in pages:
            self._references[page] = 1
        return pages

    def share(self, page: int) -> None:
        """References a page whose content is kept."""
        if page not in self._kept:
            raise BrokenBooks(f"page {page} shared although its content is not kept")
        if self._references[page] == 0:
            del self._idle[page]
        self._references[page] += 1

    def keep(self, page: int) -> None:
        """The page's content is worth keeping once nobody references it."""
        if self._references[page] == 0:
            raise BrokenBooks(f"page {page} kept although nobody references it")
        self._kept.add(page)

    def release(self, page: int) -> None:
        """Drops one reference; the page becomes idle if kept, else free."""
        if self._references[page] == 0:
            raise BrokenBooks(f"page {page} released more often than referenced")
        self._references[page] -= 1
        if self._references[page] == 0:
            if page in self._kept:
                self._idle[page] = None
            else:
                self._free.append(page)

    def check(self) -> None:
        """Raises BrokenBooks unless every page is in exactly one state and promises can be met."""
        free, idle = set(self._free), set(self._idle)
        referenced = {page for page, count in enumerate(self._references) if count > 0}
        if len(free) != len(self._free):
            raise BrokenBooks("a page is free twice")
        if free & idle or free & referenced or idle & referenced:
            raise BrokenBooks("a page is in two states")
        if len(free) + len(idle) + len(referenced) != self.capacity:
            raise BrokenBooks("a page is in no state")
        if not idle <= self._kept or self._kept & free:
            raise BrokenBooks("kept pages and idle pages disagree")
        if not 0 <= self.reserved <= len(free) + len(idle):
            raise BrokenBooks(f"{self.reserved} pages reserved, {len(free) + len(idle)} to be had")

    def _evict(self, count: int) -> list[int]:
        if count > len(self._idle):
            raise BrokenBooks("a reserved page is missing")
        pages = [self._idle.popitem(last=False)[0] for _ in range(count)]
        self._kept.difference_update(pages)
        self._forget(pages)
        return pages
