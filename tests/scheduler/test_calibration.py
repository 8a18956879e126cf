from dataclasses import replace

import pytest

from easel.scheduler.calibration import Calibration, calibrate, replay
from easel.scheduler.messages import CostCoefficients
from easel.scheduler.sim_report import summarise
from easel.scheduler.trace import Trace, TraceHeader
from tests.scheduler.simulations import random_works, simulate

COST = CostCoefficients(1e-3, 1e-5, 1e-9, 1e-6)
HEADER = TraceHeader(1, 4, 64, 8, 4, cost=COST)


def recorded(slowdown: float, request_seconds: float) -> Trace:
    """What a cluster would record whose steps take so many times what its replicas believe."""
    truth = Calibration(COST, slowdown, request_seconds)
    plain = simulate(random_works(30, seed=4, spread=0.4)).outcome.requests
    requests = replay(HEADER, sorted(plain, key=lambda one: one.arrival), truth).requests
    return Trace(HEADER, tuple(sorted(requests, key=lambda one: one.arrival)))


@pytest.mark.parametrize(("slowdown", "request_seconds"), [(1.6, 0.001), (1.2, 0.03)])
def test_slower_steps_and_dearer_requests_are_found(slowdown: float, request_seconds: float) -> None:
    found = calibrate(recorded(slowdown, request_seconds))
    assert found.step_factor == pytest.approx(slowdown, rel=0.1)
    assert found.request_seconds == pytest.approx(request_seconds, abs=0.003)


def test_a_calibrated_simulation_shows_what_was_recorded() -> None:
    trace = recorded(1.4, 0.01)
    half = len(trace.requests) // 2
    found = calibrate(trace, trace.requests[:half])
    held_out = trace.requests[half:]
    simulated, seen = summarise(replay(HEADER, held_out, found).requests), summarise(held_out)
    assert simulated.finish_p99 == pytest.approx(seen.finish_p99, rel=0.15)
    assert simulated.first_block_p50 == pytest.approx(seen.first_block_p50, rel=0.15)


def test_noise_is_drawn_from_the_seed() -> None:
    noisy = Calibration(COST, noise=(0.5, 1.0, 1.5))
    trace = recorded(1.0, 0.001)
    first, again = (replay(HEADER, trace.requests, noisy).requests for _ in range(2))
    other = replay(HEADER, trace.requests, replace(noisy, seed=1)).requests
    assert first == again
    assert first != other


def test_a_trace_without_costs_is_fitted_from_a_guess() -> None:
    trace = recorded(1.0, 0.001)
    blind = replace(trace, header=replace(HEADER, cost=None))
    found = calibrate(blind)
    simulated = summarise(replay(HEADER, trace.requests, found).requests)
    assert simulated.finish_p50 == pytest.approx(summarise(trace.requests).finish_p50, rel=0.3)
