"""Pictures put together from photographs by a seed, and questions about them whose answers the making knows.

A scene is of the split that a hash of all that is in it says, so no two splits have one in common, whatever their sizes
and seeds.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import count as naturals
from typing import Any

from tasks import stamps
from tasks.draw import seed64, split_at, uniform
from tasks.kept import kept
from tasks.problem import Picture, Problem, Rows, TaskError
from tasks.stamps import BACKGROUNDS, CELLS, FOLDER, SIDES, STAMPS, Placed, Stamp
from tasks.whole import is_whole

SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""The share of all scenes that are of a split."""
KINDS = ("count", "position", "relation")
"""Of a scene's questions, in their order."""
FACTORS = ("object", "attribute", "relation", "other", "count")
"""What a question combines, where it has that: a column each."""
MOST = {"": 5, "size": 4, "colour": 4}
"""How many there are at most to count: of a thing, and of a thing of one size or colour."""
RELATIONS = {"to the left of": ("x", -1), "to the right of": ("x", 1), "above": ("y", -1), "below": ("y", 1)}
"""The axis that decides, and the sign of first minus second for a yes."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about a scene; `needs` are the numbers of the things that its answer depends on."""

    kind: str
    question: str
    answer: str
    needs: list[int]
    factors: Mapping[str, str | int | None]


@dataclass(frozen=True, slots=True)
class Scene:
    """What is put where, and what is asked."""

    background: tuple[int, int, int]
    placed: list[Placed]
    asked: list[Asked]

    @property
    def name(self) -> str:
        """A hash of all that is in the picture."""
        return sha256(json.dumps([self.background, self.placed]).encode()).hexdigest()[:16]


def load(split: str, size: int = 300, seed: int = 0, folder: str = FOLDER) -> Rows:
    """`size` questions, three about each picture: how many things there are, in which half one is, how two lie.

    A picture has 448 by 448 pixels and up to ten things, apart from each other. Questions of one picture are one
    cluster. `folder` is that of Debian's package `tuxpaint-stamps-default`. `columns` have the boxes of the
    things that the answer needs as `region` ([left, top, right, bottom] in pixels), and what is combined: `object`,
    `attribute` (a colour or size), `relation`, `other` (the second object), `count`, and how many `objects` there are.
    Raises `TaskError`.
    """
    check(split, size, seed, folder)
    problems: list[Problem] = []
    pictures: dict[str, Picture] = {}
    for scene in scenes(seed):
        name = scene.name
        if name in pictures or split_at(uniform("scenes", name), SPLITS) != split:
            continue
        file, boxes = _drawn(scene, folder)
        pictures[name] = Picture(name, file)
        for each in scene.asked[: size - len(problems)]:
            about: dict[str, Any] = {**dict.fromkeys(FACTORS), **each.factors, "objects": len(boxes)}
            about["region"] = [boxes[number] for number in each.needs]
            question = Problem(f"{name}-{each.kind}", each.question, each.answer, file, name, each.kind, about)
            problems.append(question)
        if len(problems) == size:
            break
    return Rows(problems, tuple(pictures.values()))


def check(split: str, size: int = 300, seed: int = 0, folder: str = FOLDER) -> str | None:
    """Raises `TaskError` for an unknown split or a value that cannot be, and where a stamp is missing."""
    if split not in SPLITS:
        raise TaskError(f"scenes has no split {split!r}; it has {', '.join(SPLITS)}")
    for name, value, least in (("size", size, 1), ("seed", seed, 0)):
        if not is_whole(value) or value < least:
            raise TaskError(f"scenes: {name} is a whole number of {least} or more, not {value!r}")
    stamps.check_folder(folder)
    return None


def count(split: str, size: int = 300, **options: Any) -> int:
    """How many images there are."""
    return -(-size // len(KINDS))


def columns(split: str, **options: Any) -> frozenset[str]:
    """The names of its problems' `columns`."""
    return frozenset({*FACTORS, "objects", "region"})


def scenes(seed: int) -> Iterator[Scene]:
    """Scenes without end; each is a function of the seed and its number."""
    return (_scene(random.Random(seed64("scenes", seed, number))) for number in naturals())


def _scene(generator: random.Random) -> Scene:
    attribute = generator.choice(["", "", "size", "colour"])
    counted = generator.choice([stamp for stamp in STAMPS if attribute != "colour" or len(stamp.files) > 1])
    values = {"": [""], "size": list(SIDES), "colour": list(counted.files)}[attribute]
    generator.shuffle(values)
    numbers = [generator.randint(1 if attribute else 0, MOST[attribute])]
    if attribute:
        numbers.append(generator.randint(1, MOST[attribute] - 1))
    # Of three other things there is one each, so that a question can speak of "the dog".
    singles = generator.sample([stamp for stamp in STAMPS if stamp is not counted], 3)
    looks = [(stamp, "") for stamp in singles]
    looks += [(counted, value) for value, number in zip(values, numbers, strict=False) for _ in range(number)]
    cells = generator.sample(range(CELLS**2), len(looks))
    placed = []
    for (stamp, value), cell in zip(looks, cells, strict=True):
        colour = value if value in stamp.files else generator.choice(list(stamp.files))
        size = value if value in SIDES else generator.choice(list(SIDES))
        placed.append(Placed(stamp.files[colour], size, cell, generator.random(), generator.random()))
    asked = [
        _count(counted, values[0], numbers),
        _position(singles[0], cells[0], generator),
        _relation(singles[1:], cells[1:3], generator),
    ]
    return Scene(generator.choice(BACKGROUNDS), placed, asked)


def _count(stamp: Stamp, value: str, numbers: list[int]) -> Asked:
    # What is large shows beside what is small: both are needed.
    needs = list(range(3, 3 + sum(numbers)))
    what = f"{value} {stamp.plural}".strip()
    about = {"object": stamp.name, "attribute": value or None, "count": numbers[0]}
    return Asked("count", f"How many {what} are in the picture?", str(numbers[0]), needs, about)


def _position(stamp: Stamp, cell: int, generator: random.Random) -> Asked:
    axis = generator.choice("xy")
    halves = ("left", "right") if axis == "x" else ("top", "bottom")
    answer = halves[_place(cell)[axis] >= CELLS // 2]
    question = f"Is the {stamp.name} in the {halves[0]} half or in the {halves[1]} half of the picture?"
    return Asked("position", question, answer, [0], {"object": stamp.name, "relation": f"{answer} half"})


def _relation(pair: list[Stamp], cells: list[int], generator: random.Random) -> Asked:
    first, second = map(_place, cells)
    relation = generator.choice([name for name, (axis, _) in RELATIONS.items() if first[axis] != second[axis]])
    axis, sign = RELATIONS[relation]
    answer = "yes" if (first[axis] - second[axis]) * sign > 0 else "no"
    about = {"object": pair[0].name, "relation": relation, "other": pair[1].name}
    return Asked("relation", f"Is the {pair[0].name} {relation} the {pair[1].name}?", answer, [1, 2], about)


def _place(cell: int) -> dict[str, int]:
    return {"x": cell % CELLS, "y": cell // CELLS}


def _drawn(scene: Scene, folder: str) -> tuple[str, list[stamps.Box]]:
    data, boxes = stamps.draw(scene.placed, scene.background, folder)
    return str(kept(data)[0]), boxes
