"""Rewards by reference: a registered name, an entry point, or `path/to/file.py:function`.

Nothing is imported before it is asked for.
"""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.spelling import did_you_mean
from rewards import files
from rewards.contract import STEPS, Reward, RewardError, columns_of
from rewards.files import is_file
from tasks.gym_package import PREFIX
from tasks.problem import CALL_NAMES

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "trivium.rewards"
"""The entry points that other packages offer rewards under."""


@dataclass(frozen=True, slots=True)
class Entry:
    """`target` is `module:function`, or `file.py:function`.

    `version` changes whenever the same completion may get another score: a number for our own, the version of the
    package behind an entry point, a digest of the file. `one_answer`: all answers that score 1 to a problem are the
    same, whatever they look like; of a puzzle with several solutions they are not.
    """

    name: str
    target: str
    version: int | str
    summary: str
    one_answer: bool = False


_ENTRIES = {
    entry.name: entry
    for entry in (
        Entry(
            "answer_format", "rewards.forms:answer_format", 1, "1 for reasoning, then one <answer>, and nothing else"
        ),
        Entry(
            "choice",
            "rewards.builtin:choice",
            2,
            "1 where the letter or the text of the right option is the answer",
            True,
        ),
        Entry(
            "choice_or_value",
            "rewards.builtin:choice_or_value",
            1,
            "`choice` where there are options, else 1 for the gold number or text",
            True,
        ),
        Entry(
            "countdown", "rewards.puzzles:countdown", 2, "1 where the expression uses the numbers and gives the target"
        ),
        Entry(
            "exact_match",
            "rewards.builtin:exact_match",
            2,
            "1 where the normalised answer equals the gold, else 0",
            True,
        ),
        Entry("grid", "rewards.puzzles:grid", 1, "1 where the grid of digits is the gold one, cell by cell", True),
        Entry(
            "maths", "rewards.maths:maths", 2, "1 where the answer is mathematically equal to the gold, else 0", True
        ),
        Entry("maze_grid", "rewards.puzzles:maze_grid", 1, "1 where the maze has one of its shortest paths marked"),
        Entry("maze_path", "rewards.puzzles:maze_path", 2, "1 where the moves lead from S to G through no wall"),
        Entry(
            "number", "rewards.maths:number", 2, "1 where the answer is the gold number, however it is written", True
        ),
        Entry("short", "rewards.forms:short", 1, "1 up to `target` tokens, falling to 0 at twice as many"),
        Entry("sudoku", "rewards.puzzles:sudoku", 2, "1 where the whole grid keeps the clues and the rules"),
        Entry("sudoku_cells", "rewards.puzzles:sudoku_cells", 2, "the share of empty cells that are filled right"),
        # Of a package above: named, so that it is imported when asked for.
        Entry(
            "triad_consistency",
            "selfrefine.triad.rewards:triad_consistency",
            1,
            "how well a frozen model rebuilds question and answer from each other and the image",
        ),
        Entry(
            "visual_gain",
            "selfrefine.triad.rewards:visual_gain",
            1,
            "nats by which the image makes the answer more likely to a frozen model",
        ),
        Entry("vqa_accuracy", "rewards.builtin:vqa_accuracy", 1, "agreement with the answers of ten annotators"),
    )
}
_GYM = Entry(
    f"{PREFIX}NAME", "rewards.reasoning_gym:Scorer", "reasoning-gym's", "the scorer of a dataset of reasoning-gym"
)


def one_answer(name: str) -> bool:
    """Whether all right answers to a problem are the same under the registered reward of that name; of others it is
    not known, and said to be False."""
    return name in _ENTRIES and _ENTRIES[name].one_answer


def entries() -> list[Entry]:
    """Every registered reward, by name; those of other packages too, and the scorers of reasoning-gym as one."""
    found = {**{point.name: _of_point(point) for point in _points().values()}, **_ENTRIES, _GYM.name: _GYM}
    return [found[name] for name in sorted(found)]


def entry(reference: str) -> Entry:
    """The entry behind a reference. A file is read, and not run.

    Raises:
        RewardError: there is none; the message names the nearest one.
    """
    if reference in _ENTRIES:
        return _ENTRIES[reference]
    if is_file(reference):
        found = files.written(reference, "reward")
        return Entry(reference, f"{found.path}:{found.attribute}", found.digest, found.summary)
    if reference.startswith(PREFIX):
        from rewards import reasoning_gym

        dataset = reference.removeprefix(PREFIX)
        summary = reasoning_gym.summary(dataset)
        return Entry(reference, _GYM.target, reasoning_gym.version(), summary)
    points = _points()
    if reference in points:
        return _of_point(points[reference])
    names = [*_ENTRIES, *points]
    there = f"{', '.join(sorted([*names, _GYM.name]))}, or path/to/file.py:function"
    raise RewardError(f"no reward is called `{reference}`{did_you_mean(reference, names, f'; there are: {there}')}")


def load(reference: str, options: Mapping[str, Any] | None = None) -> Reward:
    """The reward behind a reference, with some of its arguments fixed. It can be pickled where these can.

    Raises:
        RewardError: there is none, it cannot be imported, or it takes no such option.
    """
    found = entry(reference)
    place, _, attribute = found.target.rpartition(":")
    if is_file(reference):
        reward: Reward = FileReward(str(Path(place).resolve()), attribute)
    else:
        try:
            named: Any = getattr(importlib.import_module(place), attribute)
        except (Exception, SystemExit) as error:  # whatever the package of somebody else does when it is imported
            what = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise RewardError(f"reward `{reference}` cannot be imported from {found.target} ({what})") from error
        reward = named(reference.removeprefix(PREFIX)) if reference.startswith(PREFIX) else named
    return _with_options(reference, reward, options) if options else reward


def columns(reference: str, options: Collection[str] = ()) -> list[str] | None:
    """The columns that a reward cannot do without, unless `options` give them. A file is read, and not run.

    None where only a call to `load` would tell. Raises `RewardError` where there is no such reward.
    """
    found = entry(reference)
    if reference in _ENTRIES:
        return [name for name in columns_of(load(reference)) if name not in options]
    path = _source_of(reference)
    if path is None:
        return None
    attribute = found.target.rpartition(":")[2]
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):  # of an installed package: that of a file has been read above
        return None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == attribute:
            if node.decorator_list:
                return None  # what is called is not what is written
            given = node.args
            positional = [argument.arg for argument in (*given.posonlyargs, *given.args)]
            named = zip(given.kwonlyargs, given.kw_defaults, strict=True)
            required = [argument.arg for argument, default in named if default is None]
            wanted = [*positional[: len(positional) - len(given.defaults)], *required]
            return [name for name in wanted if name not in {*CALL_NAMES, *options}]
    return None


def is_step_reward(reference: str) -> bool | None:
    """Whether a reward grades steps; None where only a call to `load` would tell. A file is read, and not run."""
    if reference in _ENTRIES or reference.startswith(PREFIX):
        return False
    wanted = columns(reference)
    return None if wanted is None else STEPS in wanted


def short_name(reference: str) -> str:
    """What a reward is called in logs: the function alone where it is one of a file."""
    return reference.rpartition(":")[2] if is_file(reference) else reference


class FileReward:
    """A function of a file outside any package. It is pickled as its place, and so loaded anew by another process."""

    def __init__(self, path: str, attribute: str) -> None:
        self.path, self.attribute = path, attribute
        self._function = files.function(path, attribute)
        functools.update_wrapper(self, self._function, updated=())
        self.__name__ = attribute

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        scores: list[float | None] = self._function(prompts, completions, **columns)
        return scores

    def __reduce__(self) -> tuple[Any, ...]:
        return FileReward, (self.path, self.attribute)


def _with_options(reference: str, reward: Reward, options: Mapping[str, Any]) -> Reward:
    import inspect

    found = inspect.signature(reward).parameters.values()
    of_a_call = ("prompts", "completions")
    taken = [each.name for each in found if each.kind is not each.VAR_KEYWORD and each.name not in of_a_call]
    for name in options:
        if name not in taken:
            raise RewardError(f"reward `{reference}` takes no `{name}`{did_you_mean(name, taken)}")
    return functools.partial(reward, **options)


def _source_of(reference: str) -> Path | None:
    """The file that a reward of a file or of another package is written in, as far as it can be told unimported."""
    if is_file(reference):
        return Path(reference.rpartition(":")[0]).expanduser()
    point = _points().get(reference)
    if point is None or point.dist is None:
        return None
    path = Path(str(point.dist.locate_file(point.module.replace(".", "/") + ".py")))
    return path if path.is_file() else None


def _points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=GROUP)}


def _of_point(point: EntryPoint) -> Entry:
    package = point.dist
    origin = "" if package is None else f"{package.name} {package.version}"
    return Entry(point.name, point.value, origin, f"of the package {origin}")
