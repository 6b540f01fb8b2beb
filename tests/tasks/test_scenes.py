"""Scenes: every answer is read off the picture again, by its pixels; splits apart; mistakes in one line."""

from __future__ import annotations

import colorsys
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from rewards.registry import load as load_reward
from tasks import scenes, stamps
from tasks.problem import TaskError
from tasks.registry import check, load
from tasks.stamps import BACKGROUNDS, STAMPS

Thing = tuple[str, str, str, list[int]]
"""Name, colour, size, box."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def paint(number: int) -> tuple[int, ...]:
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(number / 66, 1, 0.9))


PAINTS = {file: paint(number) for number, file in enumerate(f for stamp in STAMPS for f in stamp.files.values())}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """In the package's layout, a block of a colour of its own for each stamp, with transparent margins."""
    root = tmp_path_factory.mktemp("stamps")
    for number, (file, colour) in enumerate(PAINTS.items()):
        image = Image.new("RGBA", (20 + number % 7, 30), (0, 0, 0, 0))
        image.paste((*colour, 255), (2, 3, 12 + number % 7, 15 + number % 11))
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        image.save(root / file)
    return str(root)


def seen(image: str) -> list[Thing]:
    """What is in a picture, found by its colours."""
    pixels = np.array(Image.open(image)).astype(int) @ [1 << 16, 1 << 8, 1]
    assert pixels.shape == (448, 448)
    there = set(np.unique(pixels).tolist())
    found: list[Thing] = []
    for stamp in STAMPS:
        for colour, file in stamp.files.items():
            if (value := packed(PAINTS[file])) not in there:
                continue
            there.remove(value)
            for rows, cols in ndimage.find_objects(ndimage.label(pixels == value)[0]):
                box = [cols.start, rows.start, cols.stop, rows.stop]
                side = max(box[2] - box[0], box[3] - box[1])
                found.append((stamp.name, colour, {54: "small", 108: "large"}[side], box))
    assert len(there) == 1 and there < set(map(packed, BACKGROUNDS))
    return found


def packed(colour: tuple[int, ...]) -> int:
    return (colour[0] << 16) + (colour[1] << 8) + colour[2]


def answered(question: str, things: list[Thing]) -> tuple[str, list[list[int]]]:
    """The answer, and the boxes that it depends on, from what is seen alone."""
    one = {stamp.plural: stamp.name for stamp in STAMPS}
    if match := re.fullmatch(r"How many (?:(large|small|red|green|yellow) )?([a-z ]+) are in the picture\?", question):
        value, name = match[1], one[match[2]]
        alike = [thing for thing in things if thing[0] == name]
        if value:
            assert len({value in thing[1:3] for thing in alike}) == 2, "of the other kind there is one too"
        return str(sum(value is None or value in thing[1:3] for thing in alike)), [thing[3] for thing in alike]
    if match := re.fullmatch(
        r"Is the ([a-z ]+) in the (left|top) half or in the (right|bottom) half of the picture\?", question
    ):
        (box,) = (thing[3] for thing in things if thing[0] == match[1])
        ends = (box[0], box[2]) if match[2] == "left" else (box[1], box[3])
        assert max(ends) <= 224 or min(ends) >= 224, "in one half as a whole"
        return match[2] if max(ends) <= 224 else match[3], [box]
    match = re.fullmatch(r"Is the ([a-z ]+?) (to the left of|to the right of|above|below) the ([a-z ]+)\?", question)
    assert match
    (first,), (second,) = ([thing[3] for thing in things if thing[0] == match[i]] for i in (1, 3))
    if match[2] in ("below", "to the right of"):
        first, second = second, first
    axis = 0 if "to" in match[2] else 1
    assert first[axis + 2] <= second[axis] or second[axis + 2] <= first[axis], "clearly so"
    return "yes" if first[axis + 2] <= second[axis] else "no", [first, second]


def test_every_answer_can_be_read_off_the_picture(folder: str) -> None:
    rows = load("scenes", "train", size=90, seed=3, folder=folder)
    assert len(rows.problems) == 90 and len(rows.pictures) == 30
    things_in = {picture.path: seen(picture.path) for picture in rows.pictures}
    for each in rows.problems:
        things = things_in[each.image or ""]
        answer, boxes = answered(each.question, things)
        assert each.answer == answer
        assert sorted(each.columns["region"]) == sorted(boxes)
        assert each.columns["objects"] == len(things) <= 10
        assert each.columns.keys() == scenes.columns("train")
        assert each.kind in scenes.KINDS and each.id == f"{each.cluster}-{each.kind}"
        assert load_reward("exact_match")([""], [f"{answer.title()}."], answer=[each.answer]) == [1.0]
        check_factors(each.question, each.answer, each.columns)
    assert {picture.id for picture in rows.pictures} == {each.cluster for each in rows.problems}


def check_factors(question: str, answer: str, columns: Mapping[str, Any]) -> None:
    assert columns["object"] in question or columns["object"].removesuffix("y") in question
    assert columns["attribute"] is None or columns["attribute"] in question
    assert columns["count"] is None or str(columns["count"]) == answer
    if columns["other"]:
        assert f"{columns['object']} {columns['relation']} the {columns['other']}?" in question
    elif columns["relation"]:
        assert columns["relation"] == f"{answer} half"


def test_a_seed_gives_the_same_scenes_and_splits_share_none(folder: str, cache: Path) -> None:
    first = load("scenes", "test", size=9, folder=folder)
    # What is put where does not depend on the stamps' pixels.
    assert [(each.id, each.answer) for each in first.problems[:3]] == [
        ("655fbe2b30aa8d8c-count", "0"),
        ("655fbe2b30aa8d8c-position", "top"),
        ("655fbe2b30aa8d8c-relation", "no"),
    ]
    files = {path.name for path in cache.rglob("*") if path.is_file()}
    assert len(files) == 3
    assert load("scenes", "test", size=9, folder=folder) == first
    assert load("scenes", "test", size=7, folder=folder).problems == first.problems[:7]
    assert {path.name for path in cache.rglob("*") if path.is_file()} == files
    other = load("scenes", "test", size=9, seed=1, folder=folder)
    assert not {each.id for each in first.problems} & {each.id for each in other.problems}
    assert check("scenes", "test", size=7, folder=folder, skip=1, take=2) is None
    with pytest.raises(TaskError, match="asks for more than its 3 images"):
        check("scenes", "test", size=7, folder=folder, take=4)
    drawn = scenes.scenes(0)
    names = [next(drawn).name for _ in range(2_000)]
    assert len(set(names)) == 2_000
    where = Counter(scenes.split_at(scenes.uniform("scenes", name), scenes.SPLITS) for name in names)
    assert where["train"] / 2_000 == pytest.approx(0.8, abs=0.03)


def test_no_answer_can_be_guessed_from_the_question() -> None:
    drawn = scenes.scenes(1)
    asked = [each for _ in range(3_000) for each in next(drawn).asked]
    answers = {kind: Counter(each.answer for each in asked if each.kind == kind) for kind in scenes.KINDS}
    assert set(answers["count"]) == set("012345")
    for kind, most in (("count", 0.25), ("position", 0.29), ("relation", 0.53)):
        assert answers[kind].most_common(1)[0][1] / 3_000 < most
    for relation in scenes.RELATIONS:
        yes = [each.answer == "yes" for each in asked if each.factors.get("relation") == relation]
        assert np.mean(yes) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "dev"}, "no split 'dev'; it has train, validation, test"),
        ({"size": 0}, "size is a whole number of 1 or more, not 0"),
        ({"seed": -1}, "seed is a whole number of 0 or more, not -1"),
        ({"folder": "./nowhere"}, r"\./nowhere: no such folder of stamps; apt-get install tuxpaint-stamps-default"),
        ({"folder": "."}, r"no food/fruit/apple_red\.png in it; apt-get install tuxpaint-stamps-default"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(folder: str, options: dict[str, Any], words: str) -> None:
    for call in (load, check):
        with pytest.raises(TaskError, match=words) as refused:
            call("scenes", **({"split": "train", "folder": folder} | options))
        assert "\n" not in str(refused.value)


def test_a_torn_stamp_is_named(folder: str, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "torn")
    for file in PAINTS:
        (tmp_path / "torn" / file).write_bytes(b"\x89PNG torn")
    with pytest.raises(TaskError, match=r"\.png: cannot be read as an image"):
        load("scenes", "test", size=3, folder=str(tmp_path / "torn"))


@pytest.mark.skipif(not Path(stamps.FOLDER).is_dir(), reason="tuxpaint-stamps-default is not installed")
def test_the_package_has_all_stamps_and_gives_the_same_questions(folder: str) -> None:
    made, real = (load("scenes", "test", size=30, folder=each).problems for each in (folder, stamps.FOLDER))
    assert [(each.id, each.question, each.answer) for each in made] == [
        (each.id, each.question, each.answer) for each in real
    ]
    for each in real:
        assert all(
            0 <= left < right <= 448 and 0 <= top < low <= 448 for left, top, right, low in each.columns["region"]
        )
