"""Sudoku by other means than the package: exact covers (Knuth's algorithm X) and human techniques on sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}


def houses(side: int) -> list[set[tuple[int, int]]]:
    """The cells of each row, column and box."""
    high, wide = BOXES[side]
    lines = range(side)
    rows = [{(r, c) for c in lines} for r in lines]
    columns = [{(r, c) for r in lines} for c in lines]
    boxes = [
        {(r, c) for r in range(top, top + high) for c in range(left, left + wide)}
        for top in range(0, side, high)
        for left in range(0, side, wide)
    ]
    return rows + columns + boxes


def solutions(cells: Sequence[int], side: int) -> Iterator[list[int]]:
    """Every way to fill the 0s."""
    high, wide = BOXES[side]
    covers = {
        (r, c, d): [("cell", r, c), ("row", r, d), ("column", c, d), ("box", r // high, c // wide, d)]
        for r in range(side)
        for c in range(side)
        for d in range(1, side + 1)
        if cells[r * side + c] in (0, d)
    }
    open_: dict[tuple[object, ...], set[tuple[int, int, int]]] = {}
    for r in range(side):
        for c in range(side):
            for name in (("cell", r, c), ("row", r, c + 1), ("column", r, c + 1)):
                open_[name] = set()
            open_["box", r // high, c // wide, r % high * wide + c % wide + 1] = set()
    for choice, names in covers.items():
        for name in names:
            open_[name].add(choice)
    for chosen in _covers(open_, covers, []):
        filled = [0] * side * side
        for r, c, d in chosen:
            filled[r * side + c] = d
        yield filled


def _covers(open_: dict, covers: dict, chosen: list) -> Iterator[list]:  # type: ignore[type-arg]
    if not open_:
        yield chosen
        return
    least = min(open_, key=lambda name: len(open_[name]))
    for choice in list(open_[least]):
        taken = {other for name in covers[choice] for other in open_[name]}
        rest = {name: rows - taken for name, rows in open_.items() if name not in covers[choice]}
        yield from _covers(rest, covers, [*chosen, choice])


def known_without_a_guess(cells: Sequence[int], side: int, locked: bool) -> int:
    """How many cells singles fill, with or without the help of locked candidates."""
    options = {(i // side, i % side): {value} if value else set(range(1, side + 1)) for i, value in enumerate(cells)}
    before = -1
    while before != (before := sum(map(len, options.values()))):
        for house in houses(side):
            for place in house:
                if len(options[place]) == 1:
                    for other in house - {place}:
                        options[other] -= options[place]
            for digit in range(1, side + 1):
                places = [place for place in house if digit in options[place]]
                if len(places) == 1:
                    options[places[0]] = {digit}
                if locked:
                    for other_house in houses(side):
                        if other_house != house and set(places) <= other_house:
                            for other in other_house - set(places):
                                options[other].discard(digit)
    return sum(len(found) == 1 for found in options.values())
