"""reasoning-gym's datasets as tasks, `rg:NAME`: problems made by a seed, as hard as its settings say, without an end.

A problem is of the split that a hash of its question says, so splits have none in common, whatever their sizes, seeds
and settings.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Generator, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any

from tasks.draw import uniform
from tasks.gym_entry import unpacked
from tasks.gym_package import PREFIX, directory, outline
from tasks.gym_source import SECONDS
from tasks.problem import Problem, Rows, TaskError
from tasks.whole import is_whole

UNITS = "problems"
SPLITS = {"train": (0.0, 0.6), "validation": (0.6, 0.8), "test": (0.8, 1.0)}
"""Between which hashes the questions of a split lie: its share of all."""
SIZE = 500
PATIENCE = 500
"""Draws in a row without a new problem of the split, after which there is none."""

# Where a dataset has no gold answer, because many are right, its metadata may hold one of them.
_EXAMPLES = {
    "graph_color": "possible_answer",
    "propositional_logic": "example_answer",
    "rubiks_cube": "example_correct_answer",
}


def load(dataset: str, /, split: str, size: int = SIZE, seed: int = 0, **settings: Any) -> Rows:
    """`size` different problems, drawn by `seed`; all other keys are the dataset's settings of difficulty.

    Problems of one template (`gsm_symbolic`, `list_functions`) or ARC task are one cluster. `columns` have the whole
    `entry` for the reward of the same name, and what the rewards `countdown`, `sudoku` and `sudoku_cells` need. Counted
    as left out: `duplicate` (drawn again) and `no_answer` (the gold answer is empty).
    Raises `TaskError`, also where the settings allow fewer problems than `size`.
    """
    check(dataset, split, size, seed, **settings)
    return _load(dataset, split, size, seed, _as_json(dataset, settings))


def check(dataset: str, /, split: str, size: int = SIZE, seed: int = 0, **settings: Any) -> str | None:
    """Raises `TaskError` for an unknown split or dataset, and for values that the dataset refuses."""
    if split not in SPLITS:
        raise TaskError(f"{PREFIX}{dataset} has no split {split!r}; it has {', '.join(SPLITS)}")
    for name, value, least in (("size", size, 1), ("seed", seed, 0)):
        if not is_whole(value) or value < least:
            raise TaskError(f"{PREFIX}{dataset}: {name} is a whole number of {least} or more, not {value!r}")
    outline(dataset)
    if settings:
        _check(dataset, _as_json(dataset, settings))
    return None


def count(dataset: str, /, split: str, size: int = SIZE, seed: int = 0, **settings: Any) -> int:
    """How many problems there are: as many as were asked for."""
    return size


def options(dataset: str, /) -> Collection[str]:
    """The names of the dataset's settings. Raises `TaskError` where there is no such dataset."""
    return tuple(outline(dataset).settings)


def summary(dataset: str, /) -> str:
    """A line on the dataset and its settings."""
    about = outline(dataset)
    return f"{about.summary} ({', '.join(f'{name}: {value}' for name, value in about.settings.items())})"


def canonical(dataset: str, entry: Mapping[str, Any]) -> str:
    """The question by which two problems are the same: its words, or the numbers of a game in any order."""
    if dataset in ("countdown", "puzzle24"):
        return f"{sorted(entry['metadata']['numbers'])} {entry['metadata'].get('target', 24)}"
    return " ".join(str(entry["question"]).split())


def _as_json(dataset: str, settings: Mapping[str, Any]) -> str:
    try:
        return json.dumps(settings, sort_keys=True)
    except TypeError:
        raise TaskError(f"{PREFIX}{dataset}: its settings are numbers, texts, lists and mappings") from None


@lru_cache(64)
def _check(dataset: str, settings: str) -> None:
    for _ in _entries(dataset, json.loads(settings), None):
        pass


@lru_cache(4)
def _load(dataset: str, split: str, size: int, seed: int, settings: str) -> Rows:
    low, high = SPLITS[split]
    dropped: Counter[str] = Counter()
    found: dict[str, Problem] = {}
    drawn = idle = 0
    entries = _entries(dataset, json.loads(settings), seed)
    for entry, template in entries:
        drawn, idle = drawn + 1, idle + 1
        text = canonical(dataset, entry)
        if low <= uniform(PREFIX, dataset, text) < high:
            answer = _answer(dataset, entry)
            if text in found:
                dropped["duplicate"] += 1
            elif answer is None:
                dropped["no_answer"] += 1
            else:
                found[text] = _problem(dataset, text, answer, entry, template, json.loads(settings))
                idle = 0
        if len(found) == size or idle == PATIENCE:
            break
    entries.close()
    if len(found) < size:
        raise TaskError(
            f"{PREFIX}{dataset}, split {split}: {drawn:,} draws gave {len(found)} different problems, not {size:,}; "
            "ask for a smaller size, or for settings that allow more"
        )
    return Rows(tuple(found.values()), (), tuple(sorted(dropped.items())))


def _problem(
    dataset: str,
    text: str,
    answer: str,
    entry: Mapping[str, Any],
    template: int | str | None,
    settings: Mapping[str, Any],
) -> Problem:
    identity = f"{dataset}-{sha256(text.encode()).hexdigest()[:12]}"
    columns: dict[str, Any] = {"entry": json.dumps({"dataset": dataset, "settings": settings, "entry": entry})}
    metadata = entry["metadata"]
    if dataset in ("countdown", "puzzle24"):
        columns |= {"numbers": metadata["numbers"], "target": metadata.get("target", 24)}
    elif dataset in ("sudoku", "mini_sudoku"):
        columns["puzzle"] = "\n".join(" ".join(map(str, row)) for row in metadata["puzzle"])
    cluster = identity if template is None else f"{dataset}-template-{template}"
    return Problem(identity, entry["question"], answer, None, cluster, dataset, columns)


def _answer(dataset: str, entry: Mapping[str, Any]) -> str | None:
    """The gold answer; empty where the dataset tells of none, None where it is empty and so cannot be given."""
    gold = entry["answer"]
    if gold is not None:
        return str(gold) or None
    example = unpacked(entry["metadata"][_EXAMPLES[dataset]]) if dataset in _EXAMPLES else ""
    return example if isinstance(example, str) else json.dumps(example)


def _entries(
    dataset: str, settings: Mapping[str, Any], seed: int | None
) -> Generator[tuple[Mapping[str, Any], int | str | None]]:
    """Entries of the dataset with their templates as `gym_source` makes them, without an end; none without a seed.
    Raises `TaskError`."""
    request = {
        "directory": str(directory()),
        "module": outline(dataset).module,
        "dataset": dataset,
        "settings": settings,
        "seed": seed,
    }
    source = subprocess.Popen(
        [sys.executable, "-m", "tasks.gym_source", json.dumps(request)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        env=os.environ | {"PYTHONHASHSEED": "0"},
    )
    assert source.stdout is not None
    try:
        for line in source.stdout:
            said = json.loads(line)
            if "error" in said:
                raise TaskError(f"{PREFIX}{dataset}: {said['error']}")
            yield said["entry"], said["template"]
        if status := source.wait():
            took = f"made no problem in {SECONDS} s" if status == -signal.SIGALRM else f"ended with status {status}"
            raise TaskError(f"{PREFIX}{dataset}: {took}; try other settings")
    finally:
        source.kill()
        source.stdout.close()
        source.wait()
