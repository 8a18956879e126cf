"""Checkpoints shared by the worker's tests, each written once a session."""

from collections.abc import Callable
from functools import cache

import pytest

from tests.worker.tiny import VOCABULARY, Dimensions, TinyCheckpoint, write_tiny


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Dimensions], TinyCheckpoint]:
    """The checkpoint of given dimensions, written when it is first asked for."""

    @cache
    def checkpoint(dimensions: Dimensions) -> TinyCheckpoint:
        return write_tiny(tmp_path_factory.mktemp("checkpoint"), dimensions)

    return checkpoint


@pytest.fixture(scope="session")
def tiny(checkpoint_of: Callable[[Dimensions], TinyCheckpoint]) -> TinyCheckpoint:
    """The checkpoint for tests to which dimensions do not matter."""
    return checkpoint_of(Dimensions())


@pytest.fixture(scope="session")
def endless(checkpoint_of: Callable[[Dimensions], TinyCheckpoint]) -> TinyCheckpoint:
    """Its end-of-sequence lies outside the vocabulary, so every request runs to max_tokens."""
    return checkpoint_of(Dimensions(eos_ids=(VOCABULARY,)))
