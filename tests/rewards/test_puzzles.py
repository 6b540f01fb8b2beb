"""Puzzles are graded by their rules; reasoning-gym's own scorers agree where they may be asked."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from rewards import puzzles
from rewards.arithmetic import NoExpression, evaluate
from rewards.contract import INVALID, score

SOLVED = "1234 3412 2143 4321"
CLUES = "1... .4.. ..4. ...1"
MAZE = "S.#\n#..\n##G"


def one(reward: str, completion: str, **columns: object) -> tuple[float | None, str | None]:
    scores = score(getattr(puzzles, reward), [""], [completion], **{name: [value] for name, value in columns.items()})
    return scores.values[0], scores.notes.get(0)


@pytest.mark.parametrize(
    ("text", "value", "numbers"),
    [
        ("1+2*3", Fraction(7), [1, 2, 3]),
        ("(1+2)*3 = 9", Fraction(9), [1, 2, 3]),
        (r"\frac{6}{4} \times 2", Fraction(3), [6, 4, 2]),
        ("8 ÷ 2 − 1", Fraction(3), [8, 2, 1]),
        ("-(3-5)", Fraction(2), [3, 5]),
        ("$7/3$", Fraction(7, 3), [7, 3]),
        ("(50 - 8) x 2", Fraction(84), [50, 8, 2]),
        ("(50 − 8) × 2", Fraction(84), [50, 8, 2]),
        ("2X(50-8)x10", Fraction(840), [2, 50, 8, 10]),
        ("(2)x(3) x 4x5", Fraction(120), [2, 3, 4, 5]),
        (r"\frac{6}{4} x $10$", Fraction(15), [6, 4, 10]),
    ],
)
def test_arithmetic(text: str, value: Fraction, numbers: list[int]) -> None:
    assert evaluate(text) == (value, numbers)


def test_arithmetic_is_python_s_own() -> None:
    """Against Python's fractions, on random trees with random spacing and parentheses."""
    generator = random.Random(0)

    def tree(depth: int) -> tuple[str, Fraction]:
        if depth == 0 or generator.random() < 0.3:
            number = generator.randint(1, 99)
            return str(number), Fraction(number)
        (a, x), (b, y) = tree(depth - 1), tree(depth - 1)
        sign = generator.choice("+-*/" if y else "+-*")
        value = {"+": x + y, "-": x - y, "*": x * y, "/": x / y if y else x}[sign]
        return f"({a} {sign} {b})", value

    for _ in range(500):
        text, value = tree(3)
        assert evaluate(text)[0] == value


SHORT = "", "1+", "2**3", "2//3", "2^3", "1/0", "1/(2-2)", "x", "1.5", "1,2", "2(3)", "1 2", "1_0", "0x10", "1e9", "٣+١"
TIMES = "0X1f", "x2", "2x", "2 x + 1", "2xx3", "(x)"
LONG = "9" * 13, "1+" * 150 + "1", "(" * 90
CODE = "__import__('os')", "max(1,2)", "[1]", "1 if 1 else 2", "lambda: 1", "1;2", "1 \x1b[31m+ 2"


@pytest.mark.parametrize("text", SHORT + TIMES + LONG + CODE)
def test_no_arithmetic(text: str) -> None:
    with pytest.raises(NoExpression):
        evaluate(text)


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("<answer>(50-8)*2</answer>", (1.0, None)),
        (r"It is \boxed{2 \times (50-8) = 84}", (1.0, None)),
        ("(50 - 8) x 2", (1.0, None)),
        ("50 x 2 - 8", (0.0, None)),
        ("50*2-8-8", (0.0, INVALID)),
        ("84", (0.0, INVALID)),
        ("50-8", (0.0, INVALID)),
        ("no idea", (0.0, "unparsed")),
        ("<answer>50-8)*2</answer>", (0.0, "unparsed")),
    ],
)
def test_countdown(completion: str, expected: tuple[float, str | None]) -> None:
    assert one("countdown", completion, numbers=[2, 8, 50], target=84) == expected


def test_a_sudoku_is_solved_by_any_grid_that_keeps_clues_and_rules() -> None:
    assert one("sudoku", SOLVED, puzzle=CLUES) == (1.0, None)
    assert one("sudoku", f"<answer>\n{'|'.join(SOLVED)}\n</answer>", puzzle=CLUES) == (1.0, None)
    assert one("sudoku", "1234 3412 4321 2143", puzzle="................") == (1.0, None), "another solution"
    assert one("sudoku", "1234 3412 4321 2143", puzzle=CLUES) == (0.0, INVALID), "a clue is overwritten"
    assert one("sudoku", "1234 2341 3412 4123", puzzle="................") == (0.0, None), "boxes repeat"
    assert one("sudoku", SOLVED[:-1], puzzle=CLUES) == (0.0, "unparsed")
    assert one("sudoku", SOLVED, puzzle="123") == (None, "no gold")
    assert one("sudoku", f"It is {SOLVED}.", puzzle=CLUES) == (1.0, None), "a full stop is no cell"
    assert one("sudoku", f"<answer>{SOLVED}.</answer>", puzzle=CLUES) == (1.0, None)
    assert one("sudoku", f"{SOLVED}..", puzzle=CLUES) == (0.0, "unparsed")
    assert one("sudoku", f"{SOLVED}0", puzzle=CLUES) == (0.0, "unparsed")
    assert one("sudoku", f".{SOLVED}", puzzle=CLUES) == (0.0, "unparsed")
    assert one("sudoku", f"{SOLVED[:-1]}.", puzzle=CLUES) == (0.0, INVALID), "here it is one, over a clue"
    six = "123456 456123 214365 365214 531642 642531"
    assert one("sudoku", six, puzzle=six.replace("6", "_")) == (1.0, None)


def test_sudoku_cells_counts_what_was_empty() -> None:
    wrong = SOLVED[:-1] + "2"
    assert one("sudoku_cells", SOLVED, puzzle=CLUES, answer=SOLVED)[0] == 1.0
    assert one("sudoku_cells", wrong, puzzle=CLUES, answer=SOLVED)[0] == 1.0, "the wrong cell is a clue"
    assert one("sudoku_cells", "1234 3412 2143", puzzle=CLUES, answer=SOLVED)[0] == 9 / 12
    assert one("sudoku_cells", SOLVED + ".", puzzle=CLUES, answer=SOLVED)[0] == 1.0
    assert one("sudoku_cells", "1234 3412 2143.", puzzle=CLUES, answer=SOLVED)[0] == 9 / 12
    assert one("sudoku_cells", SOLVED + "..", puzzle=CLUES, answer=SOLVED) == (0.0, "unparsed")
    assert one("sudoku_cells", "", puzzle=CLUES, answer=SOLVED) == (0.0, "unparsed")
    assert one("sudoku_cells", SOLVED + "1", puzzle=CLUES, answer=SOLVED) == (0.0, "unparsed")
    assert one("sudoku_cells", SOLVED, puzzle=SOLVED, answer=SOLVED) == (None, "no gold")


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("RDRD", (1.0, None)),
        ("right, down, right, down", (1.0, None)),
        ("RDRD.", (1.0, None)),
        ("<answer>R, D, R, D.</answer>", (1.0, None)),
        ("Right, down, right, down.", (1.0, None)),
        ("RDR.", (0.0, None)),
        ("R.D.R.D", (0.0, "unparsed")),
        (".", (0.0, "unparsed")),
        ("<answer>r d r d</answer>", (0.0, "unparsed")),
        ("RDR", (0.0, None)),
        ("RDRDU", (0.0, None)),
        ("RRDD", (0.0, INVALID)),
        ("UDRDRD", (0.0, INVALID)),
        ("RDXD", (0.0, "unparsed")),
        ("", (0.0, "unparsed")),
        ("R" * 20_000, (0.0, "unparsed")),
    ],
)
def test_mazes(completion: str, expected: tuple[float, str | None]) -> None:
    assert one("maze_path", completion, maze=MAZE) == expected


def test_a_maze_without_ends_is_not_scored() -> None:
    assert one("maze_path", "R", maze="..\n..") == (None, "no gold")


OPEN = "S..\n...\n..G"


@pytest.mark.parametrize(
    ("maze", "completion", "expected"),
    [
        (MAZE, "So#\n#oo\n##G", (1.0, None)),
        (MAZE, "<think>hm</think><answer>\n S o #\n # o o\n # # G\n</answer>", (1.0, None)),
        (MAZE, MAZE, (0.0, None)),
        (MAZE, "So#\n#o.\n##G", (0.0, None)),
        (MAZE, "So.\n#oo\n##G", (0.0, None)),
        (MAZE, "oo#\n#oo\n##G", (0.0, None)),
        (MAZE, "So##oo##G", (0.0, "unparsed")),
        (MAZE, "So#\n#oo\n##G\n###", (0.0, "unparsed")),
        (MAZE, "Sx#\n#xx\n##G", (0.0, "unparsed")),
        (MAZE, "", (0.0, "unparsed")),
        (OPEN, "Soo\n..o\n..G", (1.0, None)),
        (OPEN, "S..\noo.\n.oG", (1.0, None)),
        (OPEN, "Soo\n...\n.oG", (0.0, None)),
        (OPEN, "Soo\n.oo\n..G", (0.0, None)),
        ("S...\n.##.\n...G", "Sooo\n.##o\n...G", (1.0, None)),
        ("S....\n.###.\n..G..", "Soooo\n.###o\n..Goo", (0.0, None)),
        ("SG", "SG", (1.0, None)),
    ],
)
def test_a_maze_is_solved_by_any_shortest_path(maze: str, completion: str, expected: tuple[float, str | None]) -> None:
    assert one("maze_grid", completion, maze=maze) == expected


@pytest.mark.parametrize("maze", ["", "..\n..", "S#\n#G", "S..\n.G", "S S\n..G", "S?\n.G"])
def test_a_maze_without_a_shortest_path_is_not_scored(maze: str) -> None:
    assert one("maze_grid", "So\n.G", maze=maze) == (None, "no gold")


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("0 7 7\n3 0 0", (1.0, None)),
        ("077\n300\n", (1.0, None)),
        ("[[0, 7, 7], [3, 0, 0]]", (1.0, None)),
        ("[[0,7,7],\n [3,0,0]]", (1.0, None)),
        ("| 0 | 7 | 7 |\n| 3 | 0 | 0 |", (1.0, None)),
        ("<think>0 0\n0 0</think><answer>\n```text\n0 7 7\n\n3 0 0\n```\n</answer>", (1.0, None)),
        ("0 7 7\n3 0 1", (0.0, None)),
        ("0 7 7", (0.0, None)),
        ("0 7\n7 3\n0 0", (0.0, None)),
        ("0 7 7\n3 0 0\n0 0 0", (0.0, None)),
        ("0 7 7 3 0 0", (0.0, None)),
        ("0 7 7\n3 0", (0.0, "unparsed")),
        ("0 7 7\n3 0 x", (0.0, "unparsed")),
        ("The grid is\n0 7 7\n3 0 0", (0.0, "unparsed")),
        ("[[0, 7, 7], [3, 0, 0]] + []", (0.0, "unparsed")),
        ("[[int(0), 7, 7], [3, 0, 0]]", (0.0, "unparsed")),
        ("٠ ٧ ٧\n٣ ٠ ٠", (0.0, "unparsed")),
        ("-0 7 7\n3 0 0", (0.0, "unparsed")),
        ("", (0.0, "unparsed")),
    ],
)
def test_a_grid_is_right_cell_by_cell(completion: str, expected: tuple[float, str | None]) -> None:
    assert one("grid", completion, answer="0 7 7\n3 0 0") == expected
    assert one("grid", completion, answer="grid") == (None, "no gold")
