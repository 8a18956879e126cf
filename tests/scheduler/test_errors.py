"""Errors cross process boundaries whole, and say what to do."""

import pickle

import pytest

from easel.scheduler.errors import (
    BrokenBooks,
    DeadlineImpossible,
    InvalidParameter,
    QueueFull,
    RequestTooLong,
    SchedulerError,
    TenantLimit,
    UnknownRequest,
)

EXAMPLES = [
    InvalidParameter("top_p", 2.0, "above 0 and at most 1"),
    RequestTooLong(5000, 4096, 4900),
    QueueFull(512, 512, 2.5),
    TenantLimit("acme", "requests at once", 8, 1.5),
    DeadlineImpossible(3.0, 2.0, 1.0),
    UnknownRequest("r1"),
    BrokenBooks("page 3 is free twice"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_with_its_values(error: SchedulerError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_messages_name_the_way_out() -> None:
    assert "904 more than the limit of 4096" in str(RequestTooLong(5000, 4096, 4900))
    assert "try again in 2.5 s" in str(QueueFull(512, 512, 2.5))
    assert "limit of 8 requests at once" in str(TenantLimit("acme", "requests at once", 8, 1.5))
    assert "would take 3.00 s" in str(DeadlineImpossible(3.0, 2.0, 1.0))
