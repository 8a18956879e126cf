"""The Sudoku rules: grids, puzzles and the solver by singles."""

from __future__ import annotations

import random

import pytest

from easel.demo.sudoku import FOUR, SIX, Geometry, Sudoku


@pytest.mark.parametrize("geometry", [FOUR, SIX])
def test_a_random_grid_obeys_every_row_column_and_box(geometry: Geometry) -> None:
    sudoku = Sudoku(geometry)
    rng = random.Random(1)
    assert all(sudoku.is_solved(sudoku.random_grid(rng)) for _ in range(20))


@pytest.mark.parametrize(("geometry", "blanks"), [(FOUR, 9), (SIX, 16)])
def test_a_puzzle_is_solved_by_singles_back_to_the_grid_it_came_from(geometry: Geometry, blanks: int) -> None:
    sudoku = Sudoku(geometry)
    rng = random.Random(2)
    for _ in range(20):
        grid = sudoku.random_grid(rng)
        puzzle = sudoku.puzzle(grid, blanks, rng)
        assert puzzle.count(0) > 0
        assert sudoku.solve_by_singles(puzzle) == grid


def test_the_solver_gives_up_where_singles_do_not_suffice() -> None:
    assert Sudoku(FOUR).solve_by_singles([0] * 16) is None


def test_a_grid_with_a_repeated_digit_is_not_solved() -> None:
    sudoku = Sudoku(FOUR)
    grid = sudoku.random_grid(random.Random(3))
    grid[0], grid[1] = grid[1], grid[0]
    assert not sudoku.is_solved(grid)


def test_six_by_six_boxes_are_two_rows_high_and_three_columns_wide() -> None:
    assert (0, 1, 2, 6, 7, 8) in SIX.units()


def test_a_rendered_grid_is_parsed_back() -> None:
    sudoku = Sudoku(FOUR)
    grid = [1, 0, 3, 0, 0, 0, 2, 1, 0, 1, 0, 0, 4, 0, 0, 2]
    assert sudoku.render(grid) == "1.3./..21/.1../4..2"
    assert sudoku.parse(sudoku.render(grid)) == grid


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1234",
        "1.3./..21/.1../4..5",
        "1.3./..21/.1../4..22",
        "1 3./..21/.1../4..2",
    ],
)
def test_text_of_another_form_is_no_grid(text: str) -> None:
    assert Sudoku(FOUR).parse(text) is None
