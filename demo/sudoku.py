"""Small Sudoku grids: draw one, remove cells while simple logic still solves it, check a solution.

A grid is a list of `size * size` integers, row by row; 0 is a blank cell. A cell's
candidates are a bit mask. Simple logic means naked and hidden singles; whatever they
solve has exactly one solution.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

BLANK = "."
ROW_SEPARATOR = "/"


@dataclass(frozen=True, slots=True)
class Geometry:
    """Side of the grid and the height and width of its boxes, in cells."""

    size: int
    box_rows: int
    box_columns: int

    def units(self) -> tuple[tuple[int, ...], ...]:
        """Every row, column and box, each as the indices of its cells."""
        n = self.size
        rows = [tuple(r * n + c for c in range(n)) for r in range(n)]
        columns = [tuple(r * n + c for r in range(n)) for c in range(n)]
        boxes = [
            tuple((top + r) * n + left + c for r in range(self.box_rows) for c in range(self.box_columns))
            for top in range(0, n, self.box_rows)
            for left in range(0, n, self.box_columns)
        ]
        return tuple(rows + columns + boxes)


FOUR = Geometry(4, 2, 2)
SIX = Geometry(6, 2, 3)


class Sudoku:
    """The rules of one geometry, with its lookup tables."""

    def __init__(self, geometry: Geometry) -> None:
        self.size = geometry.size
        self.cells = geometry.size**2
        self.units = geometry.units()
        self.full = (1 << geometry.size) - 1
        self.peers = tuple(
            tuple({other for unit in self.units if cell in unit for other in unit} - {cell})
            for cell in range(self.cells)
        )

    def random_grid(self, rng: random.Random) -> list[int]:
        """A solved grid, by backtracking over the most constrained cell in random order."""
        grid = [0] * self.cells
        self._fill(grid, rng)
        return grid

    def _fill(self, grid: list[int], rng: random.Random) -> bool:
        options = {cell: self.candidates(grid, cell) for cell in range(self.cells) if not grid[cell]}
        if not options:
            return True
        fewest = min(mask.bit_count() for mask in options.values())
        cell = rng.choice([c for c, mask in options.items() if mask.bit_count() == fewest])
        digits = [d for d in range(1, self.size + 1) if options[cell] >> (d - 1) & 1]
        rng.shuffle(digits)
        for digit in digits:
            grid[cell] = digit
            if self._fill(grid, rng):
                return True
        grid[cell] = 0
        return False

    def candidates(self, grid: Sequence[int], cell: int) -> int:
        used = 0
        for peer in self.peers[cell]:
            if grid[peer]:
                used |= 1 << (grid[peer] - 1)
        return self.full & ~used

    def puzzle(self, solution: Sequence[int], blanks: int, rng: random.Random) -> list[int]:
        """The solution with `blanks` cells removed, or fewer where singles could not solve more."""
        grid = list(solution)
        for cell in rng.sample(range(self.cells), self.cells):
            if blanks == 0:
                break
            grid[cell] = 0
            if self.solve_by_singles(grid) is None:
                grid[cell] = solution[cell]
            else:
                blanks -= 1
        return grid

    def solve_by_singles(self, puzzle: Sequence[int]) -> list[int] | None:
        """The solution, if naked and hidden singles alone lead to it, otherwise None."""
        grid = list(puzzle)
        options = {cell: self.candidates(grid, cell) for cell in range(self.cells) if not grid[cell]}
        while options:
            found = self._single(options)
            if found is None:
                return None
            cell, mask = found
            grid[cell] = mask.bit_length()
            del options[cell]
            for peer in self.peers[cell]:
                if peer in options:
                    options[peer] &= ~mask
        return grid

    def _single(self, options: dict[int, int]) -> tuple[int, int] | None:
        for cell, mask in options.items():
            if mask.bit_count() == 1:
                return cell, mask
        for unit in self.units:
            once = more = 0
            for cell in unit:
                mask = options.get(cell, 0)
                more |= once & mask
                once |= mask
            once &= ~more
            if once:
                single = once & -once
                cell = next(c for c in unit if options.get(c, 0) & single)
                return cell, single
        return None

    def is_solved(self, grid: Sequence[int]) -> bool:
        digits = set(range(1, self.size + 1))
        return len(grid) == self.cells and all({grid[c] for c in unit} == digits for unit in self.units)

    def render(self, grid: Sequence[int]) -> str:
        rows = (grid[start : start + self.size] for start in range(0, self.cells, self.size))
        return ROW_SEPARATOR.join("".join(str(d) if d else BLANK for d in row) for row in rows)

    def parse(self, text: str) -> list[int] | None:
        """The grid written as `render` writes it, or None when the text is not of that form."""
        rows = text.split(ROW_SEPARATOR)
        allowed = {BLANK, *(str(d) for d in range(1, self.size + 1))}
        if len(rows) != self.size or any(len(row) != self.size or set(row) - allowed for row in rows):
            return None
        return [0 if char == BLANK else int(char) for row in rows for char in row]
