"""The rules of sudoku against the task's own solver and the reward."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engines.base import EngineError, Request
from engines.settings import LatentSettings
from rewards.puzzles import sudoku
from selfrefine.latent.config import LatentReasonerConfig
from selfrefine.latent.engine import LatentEngine
from selfrefine.latent.grids import GridError, decode, encode, format_of
from selfrefine.latent.model import LatentReasoner
from selfrefine.latent.rules import sudoku_rule
from tasks.registry import load


@pytest.mark.parametrize("side", [4, 6, 9])
def test_a_board_keeps_the_rules_where_the_reward_says_so(side: int) -> None:
    """Solutions; with one cell changed; with two rows of a band exchanged, which the clues alone can tell."""
    problems = load("sudoku", side=side, size=20).problems
    config = LatentReasonerConfig(*format_of(problems), hidden_size=32, heads=2)
    draw = np.random.default_rng(0)
    questions, answers = [], []
    for problem in problems:
        question, answer = (encode(text, config) for text in (problem.question, problem.answer))
        changed, blank = answer.copy(), config.alphabet.index("_") + 1
        cell = draw.integers(side * side)
        changed[cell] = draw.choice([token for token in answer if token != answer[cell]])
        exchanged = answer.reshape(side, side)[[1, 0, *range(2, side)]].reshape(-1)
        left_blank = np.where(np.arange(side * side) == cell, blank, answer)
        for said in (answer, changed, exchanged, left_blank):
            questions.append(question)
            answers.append(said)
    texts = [decode(said, problems[i // 4].question, config) for i, said in enumerate(answers)]
    wanted = sudoku([""] * len(texts), texts, puzzle=[problems[i // 4].columns["puzzle"] for i in range(len(texts))])
    found = sudoku_rule(config)(torch.from_numpy(np.stack(questions)), torch.from_numpy(np.stack(answers)))
    assert found.tolist() == [score == 1 for score in wanted]
    assert found.sum() == 20  # the solutions alone


def test_boards_that_are_no_sudoku_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GridError, match="boards of 25 cells are no sudoku"):
        sudoku_rule(LatentReasonerConfig("_12345", 25, hidden_size=32, heads=2))
    with pytest.raises(GridError, match="a sudoku of side 4 has 4 too"):
        sudoku_rule(LatentReasonerConfig("_123", 16, hidden_size=32, heads=2))
    LatentReasoner(LatentReasonerConfig("#.SGo", 36, hidden_size=32, heads=2)).save_pretrained(tmp_path)
    with pytest.raises(EngineError, match=r"engine\.early_stop: .* a sudoku of side 6 has 1, 2, 3, 4, 5, 6 too"):
        LatentEngine(LatentSettings(early_stop="sudoku"), str(tmp_path))


@pytest.mark.parametrize(("early_stop", "blocks"), [("sudoku", [2, 2, 1, 1, 1, 1]), ("fixed_point", [2, 2])])
def test_the_engine_lets_boards_go_that_are_done(
    early_stop: str, blocks: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reasoner that says what it reads, on a full grid and on one that is not: the rules let the first go."""
    full = "1 2 3 4\n3 4 1 2\n2 1 4 3\n4 3 2 1"
    config = LatentReasonerConfig("_1234", 16, hidden_size=32, heads=2, updates=1, segments=6, z_init="zero")
    model = LatentReasoner(config)
    with torch.no_grad():
        for parameter in model.recurrence.parameters():
            parameter.zero_()  # every block hands on what it gets, normed
        model.head.weight.copy_(model.embedding.weight)
    model.save_pretrained(tmp_path)
    rows: list[int] = []
    forward = type(model.recurrence).forward
    monkeypatch.setattr(
        type(model.recurrence),
        "forward",
        lambda self, state, *rest: (rows.append(len(state[0])), forward(self, state, *rest))[1],
    )
    engine = LatentEngine(LatentSettings.model_validate({"early_stop": early_stop}), str(tmp_path))
    texts = [full, full.replace("2", "_")]
    found = list(engine.generate([Request(str(i), [{"role": "user", "content": t}]) for i, t in enumerate(texts)]))
    assert [each.text for each in found] == texts
    assert rows == blocks
