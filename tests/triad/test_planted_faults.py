"""What each score finds and what it is blind to, on worlds whose models are wrong in a way that we planted.

docs/scores.md shows the figures (1,500 pairs a world instead of the 1,000 here).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from engines.base import Decoding
from selfrefine.triad.measure import MeasureSettings, Pair, Pool, measure
from selfrefine.triad.score import consistency, visual_gain, visual_share
from selfrefine.triad.similarity import Lexical
from selfrefine.triad.vqa import ImageQuestionAnswer
from tasks.problem import Picture
from tests.triad.tabular import PROMPTS, Tabular, answer, question

IMAGES, QUESTIONS, ANSWERS, PAIRS = 80, 24, 8, 1000
SURE = 0.98
SETTINGS = MeasureSettings(samples=4, other_images=8, edge_images=0)
FAULTS = {
    "random": {"random": 0.4},
    "habit": {"habit": 0.4},
    "wrong": {"wrong": 0.4},
    "all": {"habit": 0.3, "random": 0.2, "wrong": 0.2},
}


def world(faults: Mapping[str, float], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True answers [image, question], drawn from a prior of each question, and the model's p(answer | both)."""
    rng = np.random.default_rng(seed)
    prior = rng.dirichlet(np.ones(ANSWERS), QUESTIONS)
    truth = np.stack([rng.choice(ANSWERS, IMAGES, p=p) for p in prior], axis=1)
    belief = truth.copy()
    asked = rng.random((IMAGES, QUESTIONS))
    wrong = asked < faults.get("wrong", 0)
    belief[wrong] = (truth[wrong] + rng.integers(1, ANSWERS, wrong.sum())) % ANSWERS
    flat = asked > 1 - faults.get("random", 0)
    habitual = rng.random(QUESTIONS) < faults.get("habit", 0)
    belief[:, habitual] = prior.argmax(1)[habitual]
    model = np.full((IMAGES, QUESTIONS, ANSWERS), (1 - SURE) / (ANSWERS - 1))
    np.put_along_axis(model, belief[..., None], SURE, 2)
    model[flat & ~habitual[None, :]] = 1 / ANSWERS
    return truth, model


@cache
def found(fault: str) -> dict[str, float]:
    """Area under the ROC curve of each score against the truth, mean of three worlds."""
    areas: dict[str, list[float]] = {}
    for seed in range(3):
        truth, model = world(FAULTS[fault], seed)
        rng = np.random.default_rng(seed + 100)
        asked = [(int(rng.integers(IMAGES)), int(rng.integers(QUESTIONS))) for _ in range(PAIRS)]
        answered = [int(rng.choice(ANSWERS, p=model[i, q])) for i, q in asked]
        pairs = [
            Pair(f"{n}", Picture(f"i{i}", f"i{i}.png"), question(q), answer(a))
            for n, ((i, q), a) in enumerate(zip(asked, answered, strict=True))
        ]
        triad = ImageQuestionAnswer(Tabular(model / QUESTIONS), PROMPTS, Lexical(), Decoding())
        rows = list(measure(pairs, Pool(pairs), triad, Lexical(), SETTINGS, seed))
        right = np.array([truth[i, q] == a for (i, q), a in zip(asked, answered, strict=True)])
        for name, values in scores(rows).items():
            statistic = mannwhitneyu(values[right], values[~right]).statistic
            areas.setdefault(name, []).append(float(statistic / (right.sum() * (~right).sum())))
    return {name: float(np.mean(values)) for name, values in areas.items()}


def scores(rows: list[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """`choice` compares answers alone, as here the question cannot be mistaken."""
    table = {
        "consistency": [consistency({**row, "type": "choice"}) for row in rows],
        "agreement": [row["agreement"] for row in rows],
        "gain": [visual_gain(row) for row in rows],
        "gated": [row["agreement"] if (visual_share(row) or 0) >= 0.5 else -1 for row in rows],
    }
    return {name: np.array(values, dtype=float) for name, values in table.items()}


def test_guesses_are_found_by_all() -> None:
    assert found("random")["agreement"] >= 0.94
    assert found("random")["consistency"] >= 0.85
    assert found("random")["gain"] >= 0.8


def test_habit_is_found_by_the_image_share_alone() -> None:
    assert found("habit")["consistency"] <= 0.6
    assert found("habit")["agreement"] <= 0.6
    assert found("habit")["gated"] >= 0.85


@pytest.mark.parametrize("score", ["consistency", "agreement", "gated"])
def test_an_error_made_every_time_is_found_by_none(score: str) -> None:
    assert 0.4 <= found("wrong")[score] <= 0.6


def test_ranked_by_raw_gain_rare_wrong_answers_come_first() -> None:
    assert found("wrong")["gain"] < 0.45


def test_on_a_mix_the_gate_adds_what_consistency_lacks() -> None:
    assert found("all")["gated"] - found("all")["consistency"] >= 0.08
