"""Tasks by name, loaded when asked for."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.problem import Rows, TaskError


@dataclass(frozen=True, slots=True)
class Entry:
    """A task: its name, the module whose `load(split, …)` makes its rows, and a line on it."""

    name: str
    module: str
    summary: str


_ENTRIES = (
    Entry("easy-vqa", "tasks.easy_vqa", "5,000 drawn shapes, 48,248 questions, 13 answers; in the package easy-vqa"),
    Entry("images", "tasks.images", "a folder of images without questions (folder: PATH)"),
    Entry("table", "tasks.table", "rows of a hub dataset or a local file (source: NAME or PATH, columns: …)"),
)


def entries() -> Sequence[Entry]:
    """All tasks, by name."""
    return sorted(_ENTRIES, key=lambda entry: entry.name)


def entry(name: str) -> Entry:
    """The task of this name. Raises `TaskError` with the nearest name."""
    found = {each.name: each for each in _ENTRIES}
    if name not in found:
        near = difflib.get_close_matches(name, found, 1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(found))}"
        raise TaskError(f"no task is called {name!r}{hint}")
    return found[name]


def load(task: str, split: str = "train", skip: int = 0, take: int | None = None, **options: Any) -> Rows:
    """The rows of a task's split, cut to a slice. Raises `TaskError`.

    The slice counts images where the task has images, else problems: the questions of one image stay together. Images
    come in an order that the task fixes, so that `take: 400` and `skip: 400` part a split in two. The images of the
    slice, and no others, are then decoded; rows with one that cannot be used are counted by reason.
    """
    from tasks.images import without_bad_images

    check_options(task, options)
    rows: Rows = importlib.import_module(entry(task).module).load(split, **options)
    what = f"{task}, split {split}"
    return without_bad_images(_cut(rows, skip, take, what), what)


def check_options(task: str, options: Collection[str]) -> None:
    """Raises `TaskError` where a task has no such option, or needs one that is not there."""
    taken = dict(inspect.signature(importlib.import_module(entry(task).module).load).parameters)
    del taken["split"]
    for name in options:
        if name not in taken:
            known = [*taken, "skip", "take"]
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(sorted(known))}"
            raise TaskError(f"`{name}` is no key of task {task}; {hint}")
    for name, parameter in taken.items():
        if parameter.default is parameter.empty and name not in options:
            raise TaskError(f"task {task} needs `{name}`: give {name}=…")


def check(task: str, split: str = "train", skip: int = 0, take: int | None = None, **options: Any) -> str | None:
    """Looks at what a task needs without loading rows, and without heavy imports.

    Returns a line on what could not be looked at, None where all was. Raises `TaskError` for what cannot be loaded.
    """
    module = importlib.import_module(entry(task).module)
    look, count = getattr(module, "check", None), getattr(module, "count", None)
    found: str | None = look(split, **options) if look else None
    if count and (skip or take):
        _check_slice(skip, take, count(split, **options), f"{task}, split {split}", "images")
    return found


def _cut(rows: Rows, skip: int, take: int | None, what: str) -> Rows:
    """A slice of the units: the images, then the problems without one."""
    blind = [problem for problem in rows.problems if problem.image is None]
    count = len(rows.pictures) + len(blind)
    _check_slice(skip, take, count, what, "images" if rows.pictures else "problems")
    end = count if take is None else skip + take
    pictures = rows.pictures[skip:end]
    behind = len(rows.pictures)
    wanted_ids = {picture.id for picture in pictures}
    kept_blind = {problem.id for problem in blind[max(0, skip - behind) : max(0, end - behind)]}
    kept = [p for p in rows.problems if (p.cluster in wanted_ids if p.image else p.id in kept_blind)]
    return Rows(kept, pictures, rows.dropped)


def truth(task: str, question: str, image_id: str) -> str | None:
    """The true answer to a question about an image of a task, for audits.

    Empty where no answer can be right, because the question supposes what is not there; None where the task cannot
    tell.
    """
    known = getattr(importlib.import_module(entry(task).module), "truth", None)
    return None if known is None else known(question, image_id)


def _check_slice(skip: int, take: int | None, count: int, what: str, units: str) -> None:
    if skip + (take or 1) > count:
        wanted = f"skip {skip}" + (f" and take {take}" if take else "")
        raise TaskError(f"{what}: {wanted} asks for more than its {count} {units}")
