"""The samples that a page carries, packed: blocks of JSON, gzipped, in base64, which `samples.js` unpacks.

Base64 has no character that HTML gives a meaning to, so whatever a model wrote stays data. A block holds some problems
of one evaluation and all answers to them, so that answers can be compared; one thing in many rows is written once and
referred to by its place.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from eval.trial import OUTCOMES, Trial
from pipelines.report.measures import Measures
from pipelines.report.pictures import Pictures
from tasks.draw import uniform

TEXT_BYTES = 9_500_000
"""Gzipped bytes of text that a page carries at most; base64 makes a third more of them."""
PICTURE_BYTES = 6_000_000
"""Bytes of data URIs that a page carries at most."""
BLOCK = 1_000_000
"""Characters of a block, about, before it is packed."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many of a suite's answers a page carries."""

    title: str
    shown: int
    found: int


@dataclass(frozen=True, slots=True)
class Samples:
    """`head` and `blocks` are packed. `pictures` are different ones, of `pictures_found`; `unreadable` are files."""

    head: str
    blocks: Sequence[str]
    suites: Sequence[Count]
    pictures: int
    pictures_found: int
    unreadable: int

    @property
    def shown(self) -> int:
        return sum(suite.shown for suite in self.suites)

    @property
    def found(self) -> int:
        return sum(suite.found for suite in self.suites)


def pack_samples(
    evaluations: Sequence[Measures], *, text_bytes: int = TEXT_BYTES, picture_bytes: int = PICTURE_BYTES
) -> Samples | None:
    """All answers of all evaluations, as far as there is room; None where there are none.

    Evaluations share the room evenly. One that does not fit in is shown by problems drawn at random, with all answers
    to each.
    """
    pictures = Pictures()
    blocks: list[str] = []
    placed: list[list[int | str | None]] = []
    suites: list[Count] = []
    used = 0
    for number, evaluation in enumerate(evaluations):
        left = len(evaluations) - number
        pictures.limit += (picture_bytes - pictures.limit) // left
        share = used + (text_bytes - used) // left
        shown = 0
        for chosen in _chunks(evaluation):
            block = _packed(_block(number, chosen))
            if shown and used + len(block) > share:
                break
            shown += sum(len(each.answers) for each in chosen)
            used += len(block)
            blocks.append(base64.b64encode(block).decode())
            images = [each.answers[0][1].image for each in chosen]
            placed.append([None if image is None else pictures.add(image) for image in images])
        suites.append(Count(evaluation.title, shown, sum(len(each.trials) for each in evaluation.results)))
    if not blocks:
        return None
    head = {
        "outcomes": OUTCOMES,
        "checkpoints": list(dict.fromkeys(each.label for evaluation in evaluations for each in evaluation.results)),
        "suites": [{"key": each.key, "title": each.title} for each in evaluations],
        "elsewhere": [each for number, evaluation in enumerate(evaluations) for each in _elsewhere(number, evaluation)],
        "pictures": pictures.uris,
        "pictured": placed,
    }
    return Samples(
        head=base64.b64encode(_packed(head)).decode(),
        blocks=blocks,
        suites=suites,
        pictures=len(pictures.uris),
        pictures_found=len(pictures.uris) + pictures.left_out,
        unreadable=pictures.unreadable,
    )


def _elsewhere(suite: int, evaluation: Measures) -> Iterator[list[Any]]:
    """Suite, checkpoint, base, problems gained and lost of each comparison with a base whose answers are not here."""
    own = {each.label for each in evaluation.results}
    for pair in evaluation.result["comparisons"]:
        if pair["b"] not in own:
            yield [suite, pair["a"], pair["b"], pair["gained"], pair["lost"]]


@dataclass(frozen=True, slots=True)
class _Problem:
    """A problem at its place in the suite, with the checkpoint and the trial of each answer."""

    place: int
    answers: list[tuple[str, Trial]]

    @property
    def size(self) -> int:
        """Characters of its texts."""
        prompt = self.answers[0][1].prompt
        return sum(len(turn["content"]) for turn in prompt) + sum(len(trial.completion) for _, trial in self.answers)


def _chunks(evaluation: Measures) -> Iterator[list[_Problem]]:
    """All problems of an evaluation in an order that is drawn, about `BLOCK` characters at a time."""
    problems: dict[str, _Problem] = {}
    for each in evaluation.results:
        for trial in each.trials:
            problem = problems.setdefault(trial.problem_id, _Problem(len(problems), []))
            problem.answers.append((each.label, trial))
    drawn = sorted(problems, key=lambda name: uniform("samples", evaluation.key, name))
    chosen: list[_Problem] = []
    size = 0
    for name in drawn:
        chosen.append(problems[name])
        size += problems[name].size
        if size >= BLOCK or name == drawn[-1]:
            # In the order of the suite again: what is alike stands together, which packs better.
            yield sorted(chosen, key=lambda problem: problem.place)
            chosen, size = [], 0


def _block(suite: int, problems: Sequence[_Problem]) -> dict[str, Any]:
    """Problems in columns; below `answers` the answers in columns, where `problem` counts those of the block."""
    firsts = [problem.answers[0][1] for problem in problems]
    answers = [(row, *answer) for row, problem in enumerate(problems) for answer in problem.answers]
    trials = [trial for _, _, trial in answers]
    states: dict[str, int] = {}

    def state(value: Any) -> int:
        return states.setdefault(json.dumps(value, ensure_ascii=False), len(states))

    columns = {
        "problem": [row for row, _, _ in answers],
        "checkpoint": [label for _, label, _ in answers],
        "sample": [trial.sample for trial in trials],
        "outcome": [OUTCOMES.index(trial.outcome) for trial in trials],
        "completion": [trial.completion for trial in trials],
        "tokens": [trial.completion_tokens for trial in trials],
        "strict": [trial.extract.strict for trial in trials],
        "flexible": [trial.extract.flexible for trial in trials],
        "rewards": [state([trial.reward.strict, trial.reward.flexible]) for trial in trials],
        "end": [state([trial.finish, trial.reason]) for trial in trials],
        "scores": [state([[name, each.value, each.state] for name, each in trial.scores.items()]) for trial in trials],
        "checks": [state([[each.name, each.phase, each.verdict] for each in trial.checks]) for trial in trials],
        "factors": [state(trial.factors) for trial in trials],
    }
    return {
        "suite": suite,
        "places": [problem.place for problem in problems],
        "ids": [trial.problem_id for trial in firsts],
        "clusters": [trial.cluster if trial.cluster != trial.problem_id else None for trial in firsts],
        "prompts": [[[turn["role"], turn["content"]] for turn in trial.prompt] for trial in firsts],
        "golds": [trial.gold for trial in firsts],
        "answers": columns,
        "states": [json.loads(text) for text in states],
    }


def _packed(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return gzip.compress(text.encode(), mtime=0)
