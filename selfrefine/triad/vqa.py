"""(image, question, answer) as a triad: the model itself proposes, inverts and answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from engines.base import Decoding, Engine, Generation, Message, Request, ScoreRequest
from engines.rendering import UNREADABLE
from rewards.normalise import normalise
from selfrefine.triad.similarity import Similarity
from selfrefine.triad.templates import Prompts, parse_pair, parse_question, render_pair, render_question
from selfrefine.triad.triad import Candidate, Part, Support
from tasks.draw import seed64
from tasks.problem import Picture


class ImageQuestionAnswer:
    """A `Triad` whose context is an image, whose cause is a question and whose effect is its answer.

    `n = 1` with a `decoding` of temperature 0 is the greedy rebuilding of the paper; larger `n` samples.
    """

    def __init__(self, engine: Engine, prompts: Prompts, similarity: Similarity, decoding: Decoding) -> None:
        self._engine = engine
        self._prompts = prompts
        self._similarity = similarity
        self._decoding = decoding

    def propose(self, contexts: Sequence[Picture], n: int, seed: int) -> list[list[Candidate]]:
        asked = [
            (picture, f"{picture.id}/{number}", self._prompts.ask_pair(f"{picture.id}/{number}", seed))
            for picture in contexts
            for number in range(n)
        ]
        written = iter(self._generate(asked, seed, "propose"))
        return [[_candidate(next(written)) for _ in range(n)] for _ in contexts]

    def forward(self, contexts: Sequence[Picture], causes: Sequence[str], n: int, seed: int) -> list[Support]:
        asked = [
            (picture, f"{picture.id}/{question}/{number}", self._prompts.ask_answer(question))
            for picture, question in zip(contexts, causes, strict=True)
            for number in range(n)
        ]
        written = iter(self._generate(asked, seed, "forward"))
        return [_support([next(written) for _ in range(n)], lambda text: text or None) for _ in contexts]

    def invert(self, contexts: Sequence[Picture], effects: Sequence[str], n: int, seed: int) -> list[Support]:
        asked = [
            (picture, identity, self._prompts.ask_question(answer, identity, seed))
            for picture, answer in zip(contexts, effects, strict=True)
            for identity in (f"{picture.id}/{answer}/{number}" for number in range(n))
        ]
        written = iter(self._generate(asked, seed, "invert"))
        return [_support([next(written) for _ in range(n)], parse_question) for _ in contexts]

    def compare(self, part: Part, xs: Sequence[str], ys: Sequence[str]) -> list[float | None]:
        """Equality after normalisation for answers, sentence similarity for questions."""
        if part == "effect":
            return [float(normalise(x) == normalise(y)) for x, y in zip(xs, ys, strict=True)]
        return list(self._similarity(xs, ys))

    def log_answer(self, pictures: Sequence[Picture], questions: Sequence[str], answers: Sequence[str]) -> list[float]:
        """log p(A | I, Q) in nats, one per row."""
        return self._score(pictures, [self._prompts.ask_answer(question) for question in questions], answers)

    def log_question(
        self,
        pictures: Sequence[Picture],
        questions: Sequence[str],
        answers: Sequence[str],
        identities: Sequence[str],
        seed: int,
    ) -> list[float]:
        """log p(Q | I, A) in nats, one per row; `identities` choose the paraphrase, the same for every image."""
        prompts = [self._prompts.ask_question(a, i, seed) for a, i in zip(answers, identities, strict=True)]
        return self._score(pictures, prompts, [render_question(question) for question in questions])

    def log_pair(
        self,
        pictures: Sequence[Picture],
        questions: Sequence[str],
        answers: Sequence[str],
        identities: Sequence[str],
        seed: int,
    ) -> list[float]:
        """log p(Q, A | I) in nats, one per row."""
        prompts = [self._prompts.ask_pair(identity, seed) for identity in identities]
        return self._score(pictures, prompts, [render_pair(q, a) for q, a in zip(questions, answers, strict=True)])

    def _generate(
        self, asked: Sequence[tuple[Picture, str, Sequence[Message]]], seed: int, task: str
    ) -> Sequence[Generation]:
        requests = [
            Request(identity, messages, picture.path, self._decoding, seed64(task, seed, identity) >> 1)
            for picture, identity, messages in asked
        ]
        return list(self._engine.generate(requests))

    def _score(
        self, pictures: Sequence[Picture], prompts: Sequence[Sequence[Message]], targets: Sequence[str]
    ) -> list[float]:
        rows = zip(pictures, prompts, targets, strict=True)
        requests = [ScoreRequest(str(i), messages, target, p.path) for i, (p, messages, target) in enumerate(rows)]
        # A row the engine could not score is nan: it must not look like a certain text (log p = 0).
        return [score.total if score.error is None else float("nan") for score in self._engine.score(requests)]

    def with_decoding(self, **changes: float) -> ImageQuestionAnswer:
        """The same triad, decoding otherwise."""
        return ImageQuestionAnswer(self._engine, self._prompts, self._similarity, replace(self._decoding, **changes))  # type: ignore[arg-type]


def _candidate(generation: Generation) -> Candidate:
    if generation.error is not None:
        return Candidate("", "", reason="unreadable_image" if UNREADABLE in generation.error else "engine_error")
    parsed = parse_pair(generation.text, truncated=generation.finish == "length")
    if isinstance(parsed, str):
        return Candidate("", "", generation.text, parsed)
    return Candidate(*parsed, generation.text)


def _support(generations: Sequence[Generation], read: Callable[[str], str | None]) -> Support:
    """The values that were written in full; what the engine could not do is an error, what came out empty is not."""
    values = [value for g in generations if g.finish == "stop" and (value := read(g.text)) is not None]
    return Support(values, errors=[g.error for g in generations if g.error is not None])
