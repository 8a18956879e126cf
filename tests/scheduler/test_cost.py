"""CostModel: learns what steps cost, and never believes that work takes negative time."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel.scheduler.cost import DEFAULT_PRIOR, CostModel, Workload, non_negative_least_squares
from easel.scheduler.messages import CostCoefficients, Row
from easel.scheduler.phase import RowKind

TRUTH = CostCoefficients(constant=3e-3, per_token=4e-5, per_pair=2e-8, per_head_row=1e-5)


def _random_load(draw: Random) -> Workload:
    tokens = draw.randrange(16, 600)
    return Workload(tokens, tokens * draw.randrange(50, 2000), draw.randrange(0, tokens))


def _train(truth: CostCoefficients, noise: float, reports: int = 2000) -> CostModel:
    draw, real, model = Random(7), CostModel(truth), CostModel()
    for _ in range(reports):
        load = _random_load(draw)
        model.observe(load, real.of_load(load) * draw.uniform(1.0 - noise, 1.0 + noise))
    return model


def test_known_coefficients_are_recovered() -> None:
    learned = _train(TRUTH, noise=0.0)
    assert learned.coefficients.constant == pytest.approx(TRUTH.constant, rel=0.02)
    assert learned.coefficients.per_token == pytest.approx(TRUTH.per_token, rel=0.02)
    assert learned.coefficients.per_pair == pytest.approx(TRUTH.per_pair, rel=0.02)
    assert learned.coefficients.per_head_row == pytest.approx(TRUTH.per_head_row, rel=0.02)
    assert learned.relative_error < 0.01


def test_noisy_steps_are_predicted_about_as_well_as_the_noise_allows() -> None:
    learned = _train(TRUTH, noise=0.2)
    draw, real = Random(8), CostModel(TRUTH)
    for _ in range(100):
        load = _random_load(draw)
        assert learned.of_load(load) == pytest.approx(real.of_load(load), rel=0.1)
    assert 0.05 < learned.relative_error < 0.2


def test_a_device_that_becomes_slower_is_followed() -> None:
    draw, model = Random(9), _train(TRUTH, noise=0.05)
    slower = CostModel(CostCoefficients(3e-2, 4e-4, 2e-7, 1e-4))
    for _ in range(3000):
        load = _random_load(draw)
        model.observe(load, slower.of_load(load))
    load = _random_load(draw)
    assert model.of_load(load) == pytest.approx(slower.of_load(load), rel=0.05)


def test_one_slow_step_hardly_moves_the_prediction() -> None:
    model = _train(TRUTH, noise=0.0)
    load = _random_load(Random(1))
    before = model.of_load(load)
    for _ in range(16):
        model.observe(load, 100.0 * before)
    assert model.of_load(load) == pytest.approx(before, rel=0.1)


def test_what_reports_leave_open_stays_as_the_prior_says() -> None:
    model = CostModel()
    for _ in range(64):
        model.observe(Workload(tokens=100, pairs=10_000, head_rows=0), 0.05)
    assert model.of_load(Workload(100, 10_000, 0)) == pytest.approx(0.05, rel=0.02)
    assert model.coefficients.per_head_row == pytest.approx(DEFAULT_PRIOR.per_head_row)


@given(
    st.lists(st.tuples(st.integers(1, 500), st.integers(1, 10**6), st.integers(0, 500)), max_size=80),
    st.lists(st.floats(1e-6, 10.0), min_size=80, max_size=80),
)
def test_no_reports_make_work_free_of_charge(loads: list[tuple[int, int, int]], seconds: list[float]) -> None:
    model = CostModel()
    for load, took in zip(loads, seconds, strict=False):
        model.observe(Workload(*load), took)
    known = model.coefficients
    assert min(known.constant, known.per_token, known.per_pair, known.per_head_row) >= 0.0


@given(st.lists(st.lists(st.floats(-2.0, 2.0), min_size=4, max_size=4), min_size=6, max_size=12))
def test_the_least_squares_solution_cannot_be_bettered_by_any_single_change(table: list[list[float]]) -> None:
    """The optimality conditions of a convex problem over x >= 0: no feasible slope points down."""
    matrix = [[sum(r[i] * r[j] for r in table) + 0.1 * (i == j) for j in range(4)] for i in range(4)]
    vector = [sum(r[i] for r in table) for i in range(4)]
    x = non_negative_least_squares(matrix, vector)
    assert min(x) >= 0.0
    for i in range(4):
        slope = sum(matrix[i][j] * x[j] for j in range(4)) - vector[i]
        assert slope >= -1e-6
        assert slope * x[i] == pytest.approx(0.0, abs=1e-6)


@given(st.floats(1e-6, 1.0), st.integers(0, 10_000))
def test_a_chunk_that_fits_is_the_largest_that_does(seconds: float, start: int) -> None:
    model = CostModel(TRUTH)
    length = model.chunk_within(seconds, start)
    assert model.of_prefill(start, start + length) <= seconds * (1.0 + 1e-9)
    assert model.of_prefill(start, start + length + 1) > seconds * (1.0 - 1e-9)


def test_no_time_left_leaves_room_for_nothing() -> None:
    assert CostModel(TRUTH).chunk_within(0.0, 0) == 0
    assert CostModel(TRUTH).chunk_within(-1.0, 0) == 0


def test_rows_add_up_to_the_forward() -> None:
    model = CostModel(TRUTH)
    rows = [
        Row(RowKind.PREFILL, "a", 0, 0, 64, (0,)),
        Row(RowKind.OPEN, "a", 0, 64, 16, (0,)),
        Row(RowKind.REUSE, "b", 1, 32, 16, (1,)),
    ]
    assert model.of(rows) == pytest.approx(TRUTH.constant + sum(model.of_row(row) for row in rows))
    assert Workload.of(rows) == Workload(96, 64 * 64 + 16 * 80 + 16 * 48, 32, 16)
