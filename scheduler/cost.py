"""What a step costs, learned while serving.

seconds = constant + per_token·tokens + per_pair·Σ(queries × keys) + per_head_row·head rows,
all coefficients non-negative, fitted by exponentially weighted least squares on relative errors.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from math import sqrt

from easel.scheduler.messages import CostCoefficients, Row
from easel.scheduler.phase import RowKind

TERMS = 4
FORGETTING = 0.995  # weight of the past per report: about 200 reports are remembered
PRIOR_WEIGHT = 0.001  # of one report; decides only what the reports leave open
REFIT_EVERY = 16  # reports
ERROR_MEMORY = 0.98
NO_LIMIT = 1 << 30  # tokens
_REUSE, _PREFILL, _COMMIT = RowKind.REUSE, RowKind.PREFILL, RowKind.COMMIT

DEFAULT_PRIOR = CostCoefficients(constant=2e-3, per_token=2e-5, per_pair=5e-9, per_head_row=5e-6)


@dataclass(slots=True)
class Workload:
    """Sums over a plan's rows that the cost depends on."""

    tokens: int = 0
    pairs: int = 0
    head_rows: int = 0
    reuse_tokens: int = 0  # of `tokens`; the rest is refresh

    def add(self, row: Row) -> None:
        self._change(row, 1)

    def remove(self, row: Row) -> None:
        self._change(row, -1)

    def merge(self, other: "Workload") -> None:
        self.tokens += other.tokens
        self.pairs += other.pairs
        self.head_rows += other.head_rows
        self.reuse_tokens += other.reuse_tokens

    def _change(self, row: Row, sign: int) -> None:
        # Hundreds of times a step: hence no properties of rows and kinds, and constants for the latter.
        length, kind = sign * row.length, row.kind
        self.tokens += length
        self.pairs += length * (row.span or row.start + row.length)
        if kind is _REUSE:
            self.head_rows += length
            self.reuse_tokens += length
        elif kind is not _PREFILL and kind is not _COMMIT:
            self.head_rows += length

    @staticmethod
    def of(rows: Iterable[Row]) -> "Workload":
        load = Workload()
        for row in rows:
            load.add(row)
        return load


class CostModel:
    """Predicts the seconds of a step from its rows and learns from what steps really took."""

    def __init__(self, prior: CostCoefficients = DEFAULT_PRIOR) -> None:
        self.coefficients = prior
        self.relative_error = 0.0  # running mean of |predicted - actual| / actual
        self._prior = (prior.constant, prior.per_token, prior.per_pair, prior.per_head_row)
        self._matrix = [[0.0] * TERMS for _ in range(TERMS)]
        self._vector = [0.0] * TERMS
        self._reports = 0

    def of(self, rows: Iterable[Row]) -> float:
        """Predicted seconds of one forward over `rows`."""
        return self.of_load(Workload.of(rows))

    def of_load(self, load: Workload) -> float:
        return self.coefficients.constant + self.added_by(load.tokens, load.pairs, load.head_rows)

    def of_row(self, row: Row) -> float:
        """Predicted seconds a row adds to a forward that takes place anyway."""
        return self.added_by(row.length, row.pairs, row.length if row.kind.needs_head else 0)

    def of_prefill(self, start: int, end: int) -> float:
        """Predicted seconds that writing positions [start, end) adds, in whatever chunks."""
        return self.added_by(end - start, (end - start) * end, 0)

    def chunk_within(self, seconds: float, start: int) -> int:
        """The most tokens that can be written from position `start` on in the given seconds."""
        if seconds <= 0.0:
            return 0
        linear = self.coefficients.per_token + self.coefficients.per_pair * start
        square = self.coefficients.per_pair
        # The positive root of square·n² + linear·n = seconds, in the form that stands square = 0.
        root = linear + sqrt(linear * linear + 4.0 * square * seconds)
        return int(min(2.0 * seconds / root, NO_LIMIT)) if root > 0.0 else NO_LIMIT

    def observe(self, load: Workload, seconds: float) -> None:
        """Learns from a forward that took `seconds`. Steps of no measurable time are ignored."""
        if seconds <= 0.0:
            return
        error = abs(self.of_load(load) - seconds) / seconds
        memory = ERROR_MEMORY if self._reports else 0.0
        self.relative_error = memory * self.relative_error + (1.0 - memory) * error
        # Dividing by the outcome weighs relative errors, and makes slow outliers harmless.
        row = (1.0 / seconds, load.tokens / seconds, load.pairs / seconds, load.head_rows / seconds)
        for i, left in enumerate(row):
            line = self._matrix[i]
            for j, right in enumerate(row):
                line[j] = FORGETTING * line[j] + left * right
            self._vector[i] = FORGETTING * self._vector[i] + left
        self._reports += 1
        if self._reports % REFIT_EVERY == 0:
            self._refit()

    def added_by(self, tokens: int, pairs: int, head_rows: int) -> float:
        """Predicted seconds that so much adds to a forward that takes place anyway."""
        known = self.coefficients
        return known.per_token * tokens + known.per_pair * pairs + known.per_head_row * head_rows

    def _refit(self) -> None:
        matrix = [line[:] for line in self._matrix]
        vector = self._vector[:]
        for i, prior in enumerate(self._prior):
            if prior > 0.0:  # a pseudo-report that coefficient / prior is 1
                matrix[i][i] += PRIOR_WEIGHT / (prior * prior)
                vector[i] += PRIOR_WEIGHT / prior
        self.coefficients = CostCoefficients(*non_negative_least_squares(matrix, vector))


def non_negative_least_squares(matrix: list[list[float]], vector: list[float]) -> list[float]:
    """x >= 0 that minimises xᵀ·matrix·x / 2 - vectorᵀ·x, for a few unknowns.

    The optimum is the unconstrained one of the terms that are not zero in it, so all subsets
    are tried, largest first; the first is usually the answer.
    """
    size = len(vector)
    best, best_value = [0.0] * size, 0.0
    for count in range(size, 0, -1):
        for chosen in combinations(range(size), count):
            part = _solve([[matrix[i][j] for j in chosen] for i in chosen], [vector[i] for i in chosen])
            if part is None or min(part) < 0.0:
                continue
            value = -0.5 * sum(vector[i] * x for i, x in zip(chosen, part, strict=True))
            if value < best_value:
                best, best_value = [0.0] * size, value
                for i, x in zip(chosen, part, strict=True):
                    best[i] = x
        if count == size and best_value < 0.0:
            break
    return best


def _solve(matrix: list[list[float]], vector: list[float]) -> list[float] | None:
    """Gaussian elimination on the matrix scaled to a unit diagonal; None when it is singular."""
    size = len(vector)
    scale = [sqrt(matrix[i][i]) for i in range(size)]
    if min(scale) <= 0.0:
        return None
    rows = [
        [matrix[i][j] / (scale[i] * scale[j]) for j in range(size)] + [vector[i] / scale[i]]
        for i in range(size)
    ]
    for column in range(size):
        pivot = max(range(column, size), key=lambda i: abs(rows[i][column]))
        if abs(rows[pivot][column]) < 1e-12:
            return None
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for i in range(column + 1, size):
            factor = rows[i][column] / rows[column][column]
            for j in range(column, size + 1):
                rows[i][j] -= factor * rows[column][j]
    result = [0.0] * size
    for i in range(size - 1, -1, -1):
        known = sum(rows[i][j] * result[j] for j in range(i + 1, size))
        result[i] = (rows[i][size] - known) / rows[i][i]
    return [x / s for x, s in zip(result, scale, strict=True)]
