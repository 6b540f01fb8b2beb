"""What is measured of each proposed triad: its parts rebuilt, sampled again, and weighed with and without the image."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from selfrefine.triad.route import boxes, overlap, route, strip_fixed
from selfrefine.triad.similarity import Similarity
from selfrefine.triad.vqa import ImageQuestionAnswer
from tasks.draw import seed64
from tasks.problem import Picture


class MeasureSettings(BaseModel):
    """How much is spent on measuring; a count of 0 leaves that measurement out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rebuild: bool = Field(True, description="rebuild question and answer greedily (the published score)")
    samples: int = Field(8, ge=0, description="answers sampled per question, for agreement")
    temperature: float = Field(0.7, gt=0, description="of those samples")
    other_images: int = Field(8, ge=0, description="images that stand in for 'no image' in the visual gains")
    edge_images: int = Field(8, ge=0, description="images, the true one among them, that the pair is matched against")
    edge_negatives: Literal["nearest", "random"] = Field(
        "nearest", description="the others: most alike to the checkpoint's vision encoder, or by chance of one type"
    )


@dataclass(frozen=True, slots=True)
class Pair:
    """A proposed question and answer about an image."""

    id: str
    picture: Picture
    question: str
    answer: str

    @property
    def type(self) -> str:
        """The router's type."""
        return route(self.question, self.answer)


@dataclass(slots=True)
class Measured:
    """Measurements of one pair; None where not taken or not possible. Log-probabilities are in nats."""

    id: str
    type: str
    rebuilt_question: str | None = None
    rebuilt_answer: str | None = None
    sim_question: float | None = None
    sim_answer: float | None = None
    agreement: float | None = None
    log_answer: float | None = None
    log_answer_blind: float | None = None
    log_question: float | None = None
    log_question_blind: float | None = None
    image_edge: float | None = None


class Pool:
    """All pairs of a run, from which other images are drawn: by chance among a type's, or the nearest if known."""

    def __init__(self, pairs: Sequence[Pair], nearest: Mapping[str, Sequence[Picture]] | None = None) -> None:
        """`nearest`: picture id → its most alike pictures, most alike first."""
        self._nearest = nearest or {}
        self._by_type: dict[str, list[Picture]] = defaultdict(list)
        seen: set[tuple[str, str]] = set()
        for pair in pairs:
            if (pair.type, pair.picture.id) not in seen:
                seen.add((pair.type, pair.picture.id))
                self._by_type[pair.type].append(pair.picture)

    def others(self, pair: Pair, count: int, seed: int) -> list[Picture]:
        """`count` distinct images of other pairs of the same type (all of them where there are fewer)."""
        return self._fill({}, pair, count, seed)

    def negatives(self, pair: Pair, count: int, seed: int) -> list[Picture]:
        """The `count` nearest images; where too few are known, others of the type by chance in their place."""
        near = self._nearest.get(pair.picture.id, ())[:count]
        return self._fill({picture.id: picture for picture in near}, pair, count, seed)

    def _fill(self, chosen: dict[str, Picture], pair: Pair, count: int, seed: int) -> list[Picture]:
        pictures = self._by_type[pair.type]
        attempt = 0
        while len(chosen) < count and attempt < 50 * count:
            picture = pictures[seed64("other", seed, pair.id, attempt) % len(pictures)]
            attempt += 1
            if picture.id != pair.picture.id:
                chosen[picture.id] = picture
        return list(chosen.values())


def measure(
    pairs: Sequence[Pair],
    pool: Pool,
    triad: ImageQuestionAnswer,
    similarity: Similarity,
    settings: MeasureSettings,
    seed: int,
) -> Iterator[Mapping[str, object]]:
    """One JSON-ready row per pair, in order: the fields of `Measured`."""
    measured = [Measured(pair.id, pair.type) for pair in pairs]
    if settings.rebuild:
        _rebuild(pairs, measured, triad, similarity, seed)
    if settings.samples:
        _sample(pairs, measured, triad, settings, seed)
    if settings.other_images:
        _gains(pairs, measured, pool, triad, settings.other_images, seed)
    if settings.edge_images > 1:
        _edge(pairs, measured, pool, triad, settings.edge_images, seed)
    for row in measured:
        yield {key: None if _is_nan(value) else value for key, value in asdict(row).items()}


def _rebuild(
    pairs: Sequence[Pair], measured: Sequence[Measured], triad: ImageQuestionAnswer, similarity: Similarity, seed: int
) -> None:
    """Greedy Q′ and A′ and their similarity to the originals (equation 3's two factors)."""
    pictures = [pair.picture for pair in pairs]
    greedy = triad.with_decoding(temperature=0.0)
    answers = greedy.forward(pictures, [pair.question for pair in pairs], 1, seed)
    questions = greedy.invert(pictures, [pair.answer for pair in pairs], 1, seed)
    for row, answer, question in zip(measured, answers, questions, strict=True):
        row.rebuilt_answer = answer.values[0] if answer.values else None
        row.rebuilt_question = question.values[0] if question.values else None
    _compare(pairs, measured, similarity)


def _compare(pairs: Sequence[Pair], measured: Sequence[Measured], similarity: Similarity) -> None:
    """The similarity router of section 2.3. A part that was not rebuilt, or that the type does not use, stays None."""
    texts: list[tuple[int, str, str, str]] = []
    for i, (pair, row) in enumerate(zip(pairs, measured, strict=True)):
        if pair.type not in ("yes_no", "choice", "caption") and row.rebuilt_question is not None:
            _queue(texts, i, "question", pair.question, row.rebuilt_question, pair.type, measured)
        if row.rebuilt_answer is None:
            continue
        if pair.type in ("yes_no", "choice"):
            row.sim_answer = float(_plain(pair.answer) == _plain(row.rebuilt_answer))
        else:
            _queue(texts, i, "answer", pair.answer, row.rebuilt_answer, pair.type, measured)
    scores = similarity([x for *_, x, _ in texts], [y for *_, y in texts])
    for (i, part, *_), score in zip(texts, scores, strict=True):
        setattr(measured[i], f"sim_{part}", score)


def _queue(
    texts: list[tuple[int, str, str, str]], i: int, part: str, old: str, new: str, kind: str, rows: Sequence[Measured]
) -> None:
    """Boxes are compared at once by IoU (None where the rebuilt one does not parse); texts wait for the model."""
    if kind == "region" and boxes(old):
        again = boxes(new)
        setattr(rows[i], f"sim_{part}", overlap(boxes(old)[0], again[0]) if again else None)
    else:
        texts.append((i, part, strip_fixed(old), strip_fixed(new)))


def _sample(
    pairs: Sequence[Pair],
    measured: Sequence[Measured],
    triad: ImageQuestionAnswer,
    settings: MeasureSettings,
    seed: int,
) -> None:
    """The share of sampled answers that equal the proposed one; a sample without an answer backs nothing.

    None where the engine could not sample: that says nothing of the answer.
    """
    warm = triad.with_decoding(temperature=settings.temperature, top_p=1.0)
    supports = warm.forward([p.picture for p in pairs], [p.question for p in pairs], settings.samples, seed)
    for row, pair, support in zip(measured, pairs, supports, strict=True):
        if support.errors:
            continue
        matches = triad.compare("effect", [pair.answer] * len(support.values), support.values)
        row.agreement = sum(match == 1 for match in matches) / settings.samples


def _gains(
    pairs: Sequence[Pair],
    measured: Sequence[Measured],
    pool: Pool,
    triad: ImageQuestionAnswer,
    count: int,
    seed: int,
) -> None:
    """log p of each part with the image, and its mean over other images in place of it (log-mean-exp)."""
    images = [[pair.picture, *pool.others(pair, count, seed)] for pair in pairs]
    pictures, questions, answers, ids = _rows(pairs, images)
    for part, values in (
        ("answer", triad.log_answer(pictures, questions, answers)),
        ("question", triad.log_question(pictures, questions, answers, ids, seed)),
    ):
        given = iter(values)
        for row, group in zip(measured, images, strict=True):
            seen, *blind = [next(given) for _ in group]
            setattr(row, f"log_{part}", seen)
            setattr(row, f"log_{part}_blind", log_mean_exp(blind) if blind else None)


def _edge(
    pairs: Sequence[Pair],
    measured: Sequence[Measured],
    pool: Pool,
    triad: ImageQuestionAnswer,
    count: int,
    seed: int,
) -> None:
    """e_I = log p(Q,A|I) − log mean_j p(Q,A|I_j) over the true image and K−1 others; at most log K."""
    images = [[pair.picture, *pool.negatives(pair, count - 1, seed)] for pair in pairs]
    values = iter(triad.log_pair(*_rows(pairs, images), seed))
    for row, group in zip(measured, images, strict=True):
        logs = [next(values) for _ in group]
        row.image_edge = logs[0] - log_mean_exp(logs) if len(logs) > 1 else None


def _rows(
    pairs: Sequence[Pair], images: Sequence[Sequence[Picture]]
) -> tuple[list[Picture], list[str], list[str], list[str]]:
    """Columns picture, question, answer, id: one row for each pair with each of its images."""
    rows = [(pair, picture) for pair, pictures in zip(pairs, images, strict=True) for picture in pictures]
    return (
        [picture for _, picture in rows],
        [pair.question for pair, _ in rows],
        [pair.answer for pair, _ in rows],
        [pair.id for pair, _ in rows],
    )


def log_mean_exp(logs: Sequence[float]) -> float:
    """log of the mean of exp(logs), without underflow."""
    top = max(logs)
    if not math.isfinite(top) or any(math.isnan(value) for value in logs):
        return math.nan if any(math.isnan(value) for value in logs) else top
    return top + math.log(math.fsum(math.exp(value - top) for value in logs) / len(logs))


def _plain(text: str) -> str:
    return text.strip().rstrip(".").casefold()


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
