"""Named scores of measured triads; higher is better. None where a measurement is missing: never 0."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engines.spelling import did_you_mean
from tasks.draw import uniform

Row = Mapping[str, Any]
_CERTAIN_BLIND = 0.05


def consistency(row: Row) -> float | None:
    """S = (Π sims^used)^(1/Σ used), the paper's score (arXiv 2510.10487, eq. 3); None where a used part is missing."""
    used = (
        [row["sim_answer"]]
        if row["type"] in ("yes_no", "choice", "caption")
        else [row["sim_question"], row["sim_answer"]]
    )
    if any(sim is None for sim in used):
        return None
    return float(math.prod(used) ** (1 / len(used)))


def visual_gain(row: Row) -> float | None:
    """g_A = log p(A|I,Q) − log p(A|Q): what the image adds to the answer, in nats."""
    return _difference(row["log_answer"], row["log_answer_blind"])


def question_gain(row: Row) -> float | None:
    """g_Q = log p(Q|I,A) − log p(Q|A): what the image adds to the question, in nats."""
    return _difference(row["log_question"], row["log_question_blind"])


def visual_share(row: Row) -> float | None:
    """1 − log p(A|I,Q) / log p(A|Q): the image's share of the answer's information; at most 1.

    0 where the answer is certain without the image: there is nothing for the image to tell.
    """
    seen, blind = row["log_answer"], row["log_answer_blind"]
    if seen is None or blind is None:
        return None
    return 0.0 if -blind < _CERTAIN_BLIND else float(1 - seen / blind)


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


SCORES: Mapping[str, Callable[[Row], float | None]] = {
    "consistency": consistency,
    "agreement": lambda row: row["agreement"],
    "answer_likelihood": lambda row: row["log_answer"],
    "visual_gain": visual_gain,
    "visual_share": visual_share,
    "question_gain": question_gain,
    "image_edge": lambda row: row["image_edge"],
}
RANDOM = "random"


def unknown_score(name: str) -> str | None:
    """What is wrong with a score's name, or None."""
    names = [*SCORES, RANDOM]
    if name in names:
        return None
    return f"no score is called {name!r}" + did_you_mean(name, names, f"; there are {', '.join(names)}", quote="'")


def all_scores(rows: Sequence[Row], seed: int) -> dict[str, list[float | None]]:
    """Every named score of every row."""
    scores: dict[str, list[float | None]] = {name: [score(row) for row in rows] for name, score in SCORES.items()}
    # A score that knows nothing: the control of every other.
    scores[RANDOM] = [uniform("random score", seed, row["id"]) for row in rows]
    return scores


def combine(scores: Sequence[Sequence[float | None]], types: Sequence[str]) -> list[float | None]:
    """One score as it is; several as the mean of their ranks inside each type, each rank in (0, 1].

    Ranks make scores of different scales comparable. None where any of them is None.
    """
    if len(scores) == 1:
        return list(scores[0])
    from scipy.stats import rankdata

    groups: dict[str, list[int]] = defaultdict(list)
    for i, kind in enumerate(types):
        if all(score[i] is not None for score in scores):
            groups[kind].append(i)
    combined: list[float | None] = [None] * len(types)
    for members in groups.values():
        ranks = [rankdata([score[i] for i in members]) / len(members) for score in scores]
        for place, i in enumerate(members):
            combined[i] = float(sum(rank[place] for rank in ranks) / len(ranks))
    return combined
