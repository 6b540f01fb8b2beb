"""How a reasoner answers, alignment by alignment: what more thinking is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfrefine.latent.boards import Boards
from selfrefine.latent.grids import GridError, boards_of, decode
from selfrefine.latent.model import LatentReasoner, load_answering
from selfrefine.latent.solve import solve
from tasks.problem import Problem

RAW_FOLDER = "raw"
"""Inside a checkpoint of averaged weights: those of the last step."""
LAST_FOLDER = "last"
"""Inside a checkpoint whose weights were chosen: those it would have without a choice."""
_BATCH = 128


def accuracy(model: LatentReasoner, boards: Boards) -> tuple[float, float]:
    """At the last alignment of training: the share of boards that are right, every judged cell, and of right cells."""
    right, cells = [], []
    for inputs, labels in _batches(model, boards):
        found = solve(model, inputs)
        right.append(found.right(labels)[-1])
        cells.append(found.cells(labels)[-1])
    return torch.cat(right).double().mean().item(), torch.cat(cells).double().mean().item()


def curve(model: LatentReasoner, boards: Boards, count: int) -> dict[str, list[float | None]]:
    """What stands at each of `count` alignments.

    `accuracy`: the share of boards that are right. `cells`: of cells that are, board by board. `settled`, from the
    second on: the share whose answer is that of the alignment before. `change`: the mean relative change of the
    estimate, for each update; None from an estimate of 0.
    """
    right, cells, settled, changes = [], [], [], []
    for inputs, labels in _batches(model, boards):
        found = solve(model, inputs, count, watched=True)
        right.append(found.right(labels))
        cells.append(found.cells(labels))
        settled.append((found.answers[1:] == found.answers[:-1]).all(-1))
        assert found.changes is not None
        changes.append(found.changes)
    return {
        "accuracy": torch.cat(right, 1).double().mean(1).tolist(),
        "cells": torch.cat(cells, 1).double().mean(1).tolist(),
        "settled": torch.cat(settled, 1).double().mean(1).tolist(),
        "change": [value if isfinite(value) else None for value in torch.cat(changes, 1).double().mean(1).tolist()],
    }


def said(checkpoint: Path, problems: Sequence[Problem], count: int, most: int) -> list[dict[str, Any]]:
    """`question`, `answer` and what was `said` at each alignment, as texts, of the first `most` boards.

    What is no board with an answer of its size is left out.
    """
    model = load_answering(str(checkpoint))
    found: list[dict[str, Any]] = []
    for problem in problems:
        if len(found) == most:
            break
        try:
            boards, _ = boards_of([problem], model.config)
        except GridError:
            continue
        answers = solve(model, torch.from_numpy(boards.inputs).to(model.device), count).answers[:, 0].tolist()
        texts = [decode(tokens, problem.question, model.config) for tokens in answers]
        found.append({"question": problem.question, "answer": problem.answer, "said": texts})
    return found


def _batches(model: LatentReasoner, boards: Boards) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(boards.inputs), _BATCH):
        part = slice(start, start + _BATCH)
        inputs, labels = (torch.from_numpy(each[part]).to(model.device) for each in (boards.inputs, boards.labels))
        yield inputs, labels


def curves(checkpoint: Path, boards: Boards, count: int) -> dict[str, Any]:
    """`curve` of a checkpoint's weights, `averaged` or `raw`: both where it has both; chosen ones are `best`."""
    raw, last = checkpoint / RAW_FOLDER, checkpoint / LAST_FOLDER
    whole = last if last.exists() else checkpoint
    found = {"averaged": whole, "raw": raw} if raw.exists() else {"raw": whole}
    if last.exists():
        found["best"] = checkpoint
    return {name: curve(load_answering(str(path)), boards, count) for name, path in found.items()}
