"""Boards as the folders that HRM and its successors train on (github.com/sapientinc/HRM, `dataset/`).

A folder has `train/` and `test/`, each with `dataset.json` and arrays `all__NAME.npy`. A token is a cell's value + 1; 0
fills up. A group is one original puzzle and its copies; of ours, the puzzles of one cluster.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.problem import Problem, TaskError

PADDING = -1
"""The value of a cell that is none: what fills up a board, and what no label is known for."""
META = "dataset.json"
_KEYS = ("pad_id", "ignore_label_id", "vocab_size", "seq_len", "total_groups", "sets")


@dataclass(frozen=True, slots=True)
class Arrays:
    """Boards of one size.

    `inputs` and `labels` are (n, S) values of cells, from 0 below `values`, or `PADDING`. `groups` (n,) tells of which
    original each board is a copy, in rising order.
    """

    inputs: NDArray[Any]
    labels: NDArray[Any]
    groups: NDArray[Any]
    values: int


def of_problems(problems: Sequence[Problem], signs: str) -> Arrays:
    """The grids of problems, those of one cluster together, as a group.

    `signs`: what stands for the values 0, 1, … in question and answer (`_123456789` for a sudoku of side 9, `#.SGo` for
    a maze); white space is left out. Raises `TaskError` for another sign, and for grids of several sizes.
    """
    first: dict[str, int] = {}
    groups = [first.setdefault(each.cluster, len(first)) for each in problems]
    order = sorted(range(len(problems)), key=groups.__getitem__)
    texts = ["".join(text.split()) for number in order for text in (problems[number].question, problems[number].answer)]
    if len({len(text) for text in texts}) != 1:
        raise TaskError("arrays are made of one problem or more, with questions and answers that are grids of one size")
    if other := set("".join(texts)) - set(signs):
        raise TaskError(f"a grid has the sign {min(other)!r}, which is none of {signs!r}")
    cells = np.array([[signs.index(sign) for sign in text] for text in texts])
    return Arrays(cells[::2], cells[1::2], np.sort(groups), len(signs))


def write(folder: Path, split: str, arrays: Arrays) -> None:
    """Writes a split of such a folder; other splits stay."""
    boards, cells = arrays.inputs.shape
    starts = np.flatnonzero(np.diff(arrays.groups, prepend=-1))
    where = folder / split
    where.mkdir(parents=True, exist_ok=True)
    for name, values in (("inputs", arrays.inputs), ("labels", arrays.labels)):
        np.save(where / f"all__{name}.npy", (values + 1).astype(np.uint8))
    for name, numbers in (
        ("puzzle_identifiers", np.zeros(boards)),
        ("puzzle_indices", np.arange(boards + 1)),
        ("group_indices", np.append(starts, boards)),
    ):
        np.save(where / f"all__{name}.npy", numbers.astype(np.int32))
    meta = {
        "pad_id": 0, "ignore_label_id": 0, "blank_identifier_id": 0, "vocab_size": arrays.values + 1, "seq_len": cells,
        "num_puzzle_identifiers": 1, "total_groups": len(starts), "mean_puzzle_examples": 1, "sets": ["all"],
    }  # fmt: skip
    (where / META).write_text(json.dumps(meta), encoding="utf-8")
    (folder / "identifiers.json").write_text(json.dumps(["<blank>"]), encoding="utf-8")


def read(folder: Path, split: str) -> Arrays:
    """The boards of a split. Raises `TaskError` where a file is missing, or contradicts the others."""
    where = folder / split
    meta = _meta(where)
    inputs, labels, puzzles, groups = (
        _array(where, name) for name in ("inputs", "labels", "puzzle_indices", "group_indices")
    )
    shape = inputs.shape
    if len(shape) != 2 or labels.shape != shape or shape[1] != meta["seq_len"]:
        raise TaskError(
            f"{where}: inputs {list(shape)} and labels {list(labels.shape)} are not both boards of {meta['seq_len']} "
            "cells (seq_len)"
        )
    if not _rises(puzzles, shape[0]):
        raise TaskError(f"{where}: all__puzzle_indices.npy does not rise from 0 to {shape[0]}, the number of boards")
    if not _rises(groups, len(puzzles) - 1) or len(groups) - 1 != meta["total_groups"]:
        raise TaskError(
            f"{where}: all__group_indices.npy does not rise from 0 to {len(puzzles) - 1}, the number of puzzles, in "
            f"{meta['total_groups']} steps (total_groups)"
        )
    known = [inputs, labels[labels != meta["ignore_label_id"]]]
    if any(each.size and not 0 <= each.min() <= each.max() < meta["vocab_size"] for each in known):
        raise TaskError(f"{where}: tokens beyond 0 to {meta['vocab_size'] - 1} (vocab_size)")
    group = np.repeat(np.arange(len(groups) - 1), np.diff(puzzles[groups]))
    cells = [np.where(each == meta["pad_id"], PADDING, each.astype(np.int64) - 1) for each in (inputs, labels)]
    cells[1][labels == meta["ignore_label_id"]] = PADDING
    return Arrays(cells[0], cells[1], group, meta["vocab_size"] - 1)


def shape(folder: Path, split: str) -> tuple[int, int]:
    """How many boards a split has, and of how many cells, without reading them. Raises `TaskError`."""
    boards, *cells = _array(folder / split, "inputs", lazy=True).shape
    return boards, cells[0] if len(cells) == 1 else 0


def _rises(numbers: NDArray[Any], end: int) -> bool:
    return bool(
        numbers.ndim == 1
        and len(numbers)
        and numbers.dtype.kind in "iu"
        and numbers[0] == 0
        and numbers[-1] == end
        and (np.diff(numbers.astype(np.int64)) > 0).all()
    )


def _meta(where: Path) -> dict[str, Any]:
    path = where / META
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TaskError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    missing = [key for key in _KEYS if not isinstance(meta, dict) or key not in meta]
    if missing:
        raise TaskError(f"{path}: has no {', '.join(missing)}")
    wrong = [key for key in ("vocab_size", "seq_len", "total_groups", "pad_id") if not isinstance(meta[key], int)]
    if wrong:
        raise TaskError(f"{path}: {wrong[0]} is a whole number, not {meta[wrong[0]]!r}")
    if meta["sets"] != ["all"]:
        raise TaskError(f"{path}: the sets are {meta['sets']}; only a folder with the one set `all` can be read")
    found: dict[str, Any] = meta
    return found


def _array(where: Path, name: str, lazy: bool = False) -> NDArray[Any]:
    path = where / f"all__{name}.npy"
    try:
        found: NDArray[Any] = np.load(path, mmap_mode="r" if lazy else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TaskError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    if found.dtype.kind not in "iu":
        raise TaskError(f"{path}: holds no whole numbers")
    return found
