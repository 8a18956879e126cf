"""Books: a request that is let in never lacks a slot or page, and leaves nothing behind."""

import pytest

from easel.scheduler.books import Books
from easel.scheduler.errors import BrokenBooks
from easel.scheduler.life import RequestState, Stage, begin
from easel.scheduler.messages import ReplicaShape
from tests.fakes import request, shape


def _state(where: ReplicaShape, name: str, prompt: int, max_tokens: int = 4, seed: str = "") -> RequestState:
    """Requests of one seed share a prompt as far as both go."""
    tokens = request(seed or name, 200).prompt[:prompt]
    return begin(request(name, tokens, max_tokens), where, 0.0, 0)


def _write_prefix(books: Books, state: RequestState) -> None:
    books.extend(state, state.canvas_start)
    books.wrote(state, state.canvas_start)


def test_admission_promises_what_the_request_may_come_to_need() -> None:
    books = Books(shape(pages=8))
    state = _state(books.shape, "a", prompt=16, max_tokens=20)
    assert books.admit(state, 0.0)
    # 36 positions; the last canvas starts at 32 and is never written.
    assert state.promised == 4
    assert books.pool.available == 4
    books.check([state])


def test_a_request_whose_pages_cannot_all_be_had_changes_nothing() -> None:
    books = Books(shape(pages=5))
    holder, other = _state(books.shape, "a", 16, 16), _state(books.shape, "b", 16, 16)
    assert books.admit(holder, 0.0)
    assert not books.admit(other, 0.0)
    assert other.stage is Stage.WAITING
    assert books.slots.used == 1
    books.check([holder, other])


def test_cached_pages_that_are_matched_count_as_taken() -> None:
    """Idle pages are available until matched: a request must not be promised its own prefix twice."""
    books = Books(shape(pages=4))
    first = _state(books.shape, "a", 24, 4, seed="s")
    assert books.admit(first, 0.0)
    _write_prefix(books, first)
    books.leave(first)
    again = _state(books.shape, "b", 24, 12, seed="s")
    assert again.pages_needed == 4
    assert books.admit(again, 0.0)
    assert (again.cached_tokens, again.promised, books.pool.available) == (24, 1, 0)
    books.check([again])


def test_shared_pages_survive_the_first_one_to_leave() -> None:
    books = Books(shape(pages=16))
    first, second = (_state(books.shape, name, 16, 4, seed="s") for name in ("a", "b"))
    books.admit(first, 0.0)
    _write_prefix(books, first)
    books.admit(second, 0.0)
    assert second.pages == first.pages
    books.leave(first)
    assert all(books.pool.references(page) == 1 for page in second.pages)
    books.check([second])


def test_two_who_wrote_the_same_at_once_keep_their_own_pages() -> None:
    books = Books(shape(pages=16))
    first, second = (_state(books.shape, name, 16, 4, seed="s") for name in ("a", "b"))
    books.admit(first, 0.0)
    books.admit(second, 0.0)
    _write_prefix(books, first)
    _write_prefix(books, second)
    assert not set(first.pages) & set(second.pages)
    assert len(books.cache) == 2
    books.leave(second)
    books.leave(first)
    books.check([])
    assert books.pool.available == 16


def test_the_ends_of_chains_are_evicted_before_their_beginnings() -> None:
    books = Books(shape(slots=1, pages=4))
    old = _state(books.shape, "a", 32, 4)
    books.admit(old, 0.0)
    _write_prefix(books, old)
    chain = list(old.chain)
    books.leave(old)
    new = _state(books.shape, "b", 16, 4)
    books.admit(new, 0.0)
    _write_prefix(books, new)
    assert len(books.cache.match(chain)) == 2


def test_more_pages_than_promised_are_a_bug_that_is_named() -> None:
    books = Books(shape())
    state = _state(books.shape, "a", 8, 4)
    books.admit(state, 0.0)
    with pytest.raises(BrokenBooks, match="more pages than it was promised"):
        books.extend(state, 800)


def test_a_lost_page_is_found_by_the_check() -> None:
    books = Books(shape())
    state = _state(books.shape, "a", 16, 4)
    books.admit(state, 0.0)
    _write_prefix(books, state)
    state.pages.pop()
    with pytest.raises(BrokenBooks, match="references"):
        books.check([state])


def test_a_lost_slot_is_found_by_the_check() -> None:
    books = Books(shape())
    books.slots.free.pop()
    with pytest.raises(BrokenBooks, match="slots"):
        books.check([])
