"""Rows on which `trivium rewards check` tries the built-in rewards: columns, and a completion that is right."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rewards.contract import RewardError
from tasks.gym_package import PREFIX

Row = Mapping[str, Any]
RIGHT = "completion"
"""The key of the right completion in a row; all others are columns."""

_WORDS: Sequence[Row] = [{"answer": word, RIGHT: word} for word in ("red", "two circles", "Paris", "no")]

SAMPLES: Mapping[str, Sequence[Row]] = {
    "answer_format": [
        {RIGHT: f"<think>{thought}</think><answer>{thought[-1]}</answer>"} for thought in ("1+1=2", "so 3")
    ],
    "choice": [
        {"answer": "B", "choices": ["red", "blue", "green"], RIGHT: "B"},
        {"answer": "green", "choices": ["red", "blue", "green"], RIGHT: "The answer is (C)"},
    ],
    "choice_or_value": [
        {"answer": "B", "choices": ["red", "blue", "green"], "precision": None, RIGHT: "blue"},
        {"answer": "1.2", "choices": None, "precision": 1.0, RIGHT: "1.21"},
    ],
    "countdown": [
        {"numbers": [2, 8, 50], "target": 84, RIGHT: "(50-8)*2"},
        {"numbers": [3, 5, 7], "target": 26, RIGHT: "3*7+5"},
    ],
    "exact_match": _WORDS,
    "grid": [{"answer": "0 7\n7 0\n3 3", RIGHT: "[[0, 7], [7, 0], [3, 3]]"}, {"answer": "5", RIGHT: "```\n5\n```"}],
    "maths": [
        {"answer": r"\frac{1}{2}", RIGHT: r"\boxed{0.5}"},
        {"answer": "2x+1", RIGHT: r"\boxed{1+2x}"},
        {"answer": "1000", RIGHT: "1,000"},
    ],
    "maze_grid": [{"maze": "S.#\n#..\n##G", RIGHT: "So#\n#oo\n##G"}, {"maze": "S.\n.G", RIGHT: "S.\noG"}],
    "maze_path": [{"maze": "S.#\n#..\n##G", RIGHT: "RDRD"}, {"maze": "S#\n.G", RIGHT: "down right"}],
    "number": [{"answer": "72", RIGHT: "72"}, {"answer": "so #### 1000", RIGHT: "$1,000"}],
    "short": [{RIGHT: "word " * 10}, {RIGHT: "word"}],
    "sudoku": [{"puzzle": "1... .4.. ..4. ...1", RIGHT: "1234 3412 2143 4321"}],
    "sudoku_cells": [
        {"puzzle": "1... .4.. ..4. ...1", "answer": "1234 3412 2143 4321", RIGHT: "1234 3412 2143 4321"},
    ],
    "vqa_accuracy": [{"answers": ["red"] * 8 + ["dark red"] * 2, RIGHT: "red"}, {"answers": ["2"] * 10, RIGHT: "two"}],
}


def steps_of(completion: str) -> list[str]:
    """The parts of a completion: its sentences and lines. One that has a single part gets a line before it."""
    parts = [part for part in re.split(r"(?<=[.!?]\s)|(?<=\n)", completion) if part]
    return parts if len(parts) > 1 else ["Let me see.\n", *parts]


def sample_rows(name: str) -> Sequence[Row]:
    """The rows for a reward of that name; questions with short answers where there are none of its own.

    For a scorer of reasoning-gym, problems of its dataset. Raises `RewardError` where these have no right answers.
    """
    if name.startswith(PREFIX):
        from tasks.registry import load

        rows = [{**each.columns, RIGHT: each.answer} for each in load(name, size=4).problems]
        if not all(row[RIGHT] for row in rows):
            raise RewardError(f"{name}: the dataset tells no right answers to try the reward on; give some by --data")
        return rows
    return SAMPLES.get(name, _WORDS)
