"""Grids as tokens and back, and boards with their copies."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from engines.base import EngineError, Request
from engines.settings import LatentSettings
from selfrefine.latent.boards import Boards
from selfrefine.latent.config import LatentReasonerConfig
from selfrefine.latent.curves import curve, curves, said
from selfrefine.latent.engine import LatentEngine
from selfrefine.latent.grids import GridError, boards_of, decode, encode, format_of, read_board
from selfrefine.latent.model import LatentReasoner
from selfrefine.latent.solve import solve
from tasks.problem import Problem
from tasks.registry import load

GRID = "1 _ 3 4\n3 4 _ 2\n\n2 1 4 3\n4 3 2 1"


def test_a_text_is_written_back_in_its_own_layout(config: LatentReasonerConfig) -> None:
    tokens = encode(GRID, config)
    assert tokens.tolist()[:6] == [2, 1, 4, 5, 4, 5]
    assert decode(tokens.tolist(), GRID, config) == GRID
    filled = [3 if token == 1 else token for token in tokens.tolist()]
    assert decode(filled, GRID, config) == GRID.replace("_", "2")
    assert decode([0, *filled[1:]], GRID, config).startswith("? 2")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 2 x", "'x' is no cell"),
        ("1" * 17, "a grid of 17 cells; this model reads 1 to 16"),
        (" ", "a grid of 0 cells"),
    ],
)
def test_other_texts_are_refused(config: LatentReasonerConfig, text: str, said: str) -> None:
    with pytest.raises(GridError, match=said):
        encode(text, config)


def test_a_board_of_another_size_than_training_s_is_not_asked(config: LatentReasonerConfig) -> None:
    assert read_board(GRID, None, config).tolist() == encode(GRID, config).tolist()
    with pytest.raises(GridError, match="a grid of 4 cells; this model was trained on 16"):
        read_board("1 2 _ 4", None, config)


def test_copies_of_mazes_are_not_made_of_sudokus(config: LatentReasonerConfig) -> None:
    with pytest.raises(GridError, match="symmetry: maze: alphabet '_1234' has no S and no G"):
        boards_of([Problem("a", GRID, GRID.replace("_", "2"))], config, "maze")


def test_boards_are_shown_that_have_an_answer_of_their_size(reasoner: LatentReasoner, tmp_path: Path) -> None:
    reasoner.save_pretrained(tmp_path)
    good = Problem("a", GRID, GRID.replace("_", "2"))
    rows = [Problem("b", GRID, "1 2 3 4"), good, Problem("c", "one", "two"), good, good]
    shown = said(tmp_path, rows, 3, most=2)
    assert [(each["question"], len(each["said"])) for each in shown] == [(GRID, 3), (GRID, 3)]
    assert all(len(text.split()) == 16 for each in shown for text in (each["answer"], *each["said"]))


def test_answers_are_made_on_a_gpu_where_there_is_one(
    reasoner: LatentReasoner, boards: Boards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasoner.save_pretrained(tmp_path)
    moved: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(LatentReasoner, "to", lambda self, device: (moved.append(device), self)[1])
    curves(tmp_path, boards, 1)
    said(tmp_path, [Problem("a", GRID, GRID.replace("_", "2"))], 1, most=1)
    LatentEngine(LatentSettings(), str(tmp_path))
    assert moved == ["cuda"] * 3


@pytest.mark.parametrize("recurrence", ["sr2", "plain"])
def test_the_change_from_an_estimate_of_zero_is_not_known(boards: Boards, recurrence: str) -> None:
    size = {"layers": 1, "updates": 1, "segments": 1} if recurrence == "plain" else {"updates": 2, "segments": 2}
    config = LatentReasonerConfig("_1234", 16, hidden_size=32, heads=2, recurrence=recurrence, z_init="zero", **size)
    changes = curve(LatentReasoner(config), boards, config.segments)["change"]
    assert changes[0] is None and all(value is not None and value > 0 for value in changes[1:])
    json.dumps(changes, allow_nan=False)


def test_rows_that_are_no_boards_are_counted(config: LatentReasonerConfig) -> None:
    good = Problem("a", GRID, GRID.replace("_", "2"))
    rows = [good, Problem("b", "1 + 1", "2"), Problem("c", GRID, "1 2 3 4"), good]
    boards, left_out = boards_of(rows, config)
    assert len(boards.inputs) == 2 and left_out == {"no_grid": 1, "answer_of_another_size": 1}
    assert format_of(rows) == ("1234_", 16)
    with pytest.raises(GridError, match="boards of 4, 16 cells"):
        boards_of([good, Problem("d", "1 2 3 4", "1 2 3 4")], config)


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (Problem("b", "1 + 1", "2"), "'+' is no cell; a grid of this model has the characters '_1234'"),
        (Problem("b", "1" * 36, "1" * 36), "a grid of 36 cells; this model reads 1 to 16"),
        (Problem("b", GRID, "1 2 3 4"), "a grid of 16 cells, an answer of 4"),
    ],
)
def test_where_no_board_is_left_the_first_problem_says_why(
    config: LatentReasonerConfig, first: Problem, reason: str
) -> None:
    said = f"none of 2 problems is a grid with an answer of its size; b: {reason}"
    with pytest.raises(GridError, match=f"^{re.escape(said)}$"):
        boards_of([first, Problem("c", "?", "?")], config)


def test_copies_of_token_boards_are_sudokus_with_their_solutions() -> None:
    problems = load("sudoku", size=30).problems
    alphabet, size = format_of(problems)
    config = LatentReasonerConfig(alphabet, size, hidden_size=32, heads=2)
    boards, _ = boards_of(problems, config, "sudoku")
    inputs, labels = boards.batch(0, 30, 0)
    assert not {tuple(row) for row in inputs.tolist()} & {tuple(row) for row in boards.inputs.tolist()}
    blank = alphabet.index("_") + 1
    assert ((inputs == labels) | (inputs == blank)).all() and (labels != blank).all()
    grids = labels.reshape(30, 4, 4)
    units = np.concatenate(
        [grids, grids.transpose(0, 2, 1), grids.reshape(30, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(30, 4, 4)], 1
    )
    assert all(len(set(unit)) == 4 for unit in units.reshape(-1, 4).tolist())
    assert sorted((inputs == blank).sum(1)) == sorted((boards.inputs == blank).sum(1))


def test_the_engine_answers_in_order_what_the_model_says(reasoner: LatentReasoner, tmp_path: Path) -> None:
    reasoner.save_pretrained(tmp_path)
    engine = LatentEngine(LatentSettings(batch_size=2, segments=2), str(tmp_path))
    texts = [GRID, "1 _", GRID[::-1], "what?", GRID.replace("1", "_")]
    requests = [Request(str(i), [{"role": "user", "content": text}]) for i, text in enumerate(texts)]
    found = list(engine.generate(requests))
    assert [each.id for each in found] == list("01234")
    assert [each.finish for each in found] == ["stop", "error", "stop", "error", "stop"]
    assert found[1].error == "a grid of 2 cells; this model was trained on 16"
    assert found[3].error is not None and "'w' is no cell" in found[3].error
    for i in (0, 2, 4):
        ids = torch.from_numpy(encode(texts[i], reasoner.config))[None]
        assert found[i].token_ids == tuple(solve(reasoner, ids, 2).answers[-1, 0].tolist())
    with pytest.raises(EngineError, match="teacher-forced"):
        engine.score([])
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        list(engine.generate(requests))
