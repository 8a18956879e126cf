"""Identity of pages: a chain of hashes, so that equal prefixes share pages.

A full page is named by hash(name of the page before it, its tokens); the first one's parent is
the tenant's salt, so tenants never share and cannot probe each other's prompts by timing.
"""

from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from easel.scheduler.errors import BrokenBooks

DIGEST_BYTES = 16


def salt_of(tenant: str) -> bytes:
    """The parent of a tenant's first pages."""
    return blake2b(tenant.encode(), digest_size=DIGEST_BYTES, person=b"easel-salt").digest()


def page_hash(parent: bytes, tokens: Sequence[int]) -> bytes:
    """Name of the page that holds `tokens` after the page named `parent`."""
    return blake2b(parent + array("q", tokens).tobytes(), digest_size=DIGEST_BYTES).digest()


def page_chain(tokens: Sequence[int], page_size: int, tenant: str) -> list[bytes]:
    """Names of all full pages of `tokens`, first page first."""
    parent = salt_of(tenant)
    chain: list[bytes] = []
    for start in range(0, len(tokens) - page_size + 1, page_size):
        parent = page_hash(parent, tokens[start : start + page_size])
        chain.append(parent)
    return chain


class PrefixCache:
    """Which page holds which content. Lifetimes are the PagePool's business."""

    def __init__(self) -> None:
        self._page_of: dict[bytes, int] = {}
        self._hash_of: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._page_of)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._page_of

    def match(self, chain: Sequence[bytes]) -> list[int]:
        """Pages of the longest leading part of `chain` that is cached."""
        pages: list[int] = []
        for digest in chain:
            page = self._page_of.get(digest)
            if page is None:
                break
            pages.append(page)
        return pages

    def insert(self, digest: bytes, page: int) -> bool:
        """Records the page's content; False when another page already holds the same."""
        if digest in self._page_of:
            return False
        if page in self._hash_of:
            raise BrokenBooks(f"page {page} is cached under two names")
        self._page_of[digest] = page
        self._hash_of[page] = digest
        return True

    def forget(self, pages: Iterable[int]) -> None:
        """The pages' contents are gone."""
        for page in pages:
            del self._page_of[self._hash_of.pop(page)]

    def holds(self, page: int) -> bool:
        return page in self._hash_of

    def check(self) -> None:
        """Raises BrokenBooks unless names and pages correspond one to one."""
        if {digest: page for page, digest in self._hash_of.items()} != self._page_of:
            raise BrokenBooks("prefix cache names and pages disagree")
