"""Questions with sentences that do not matter: how many, and how misleading (compare arXiv 2302.00093)."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from eval.stress import wording
from tasks.draw import seed64
from tasks.problem import Problem, TaskError

OTHER_TOPIC, SAME_ENTITIES, SAME_WITH_NUMBERS = 1, 2, 3

_END = re.compile(r"(?<=[.!?])(?<!\bMr\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\bvs\.)(?<!\bMrs\.)\s+(?=[A-Z\"(])")
_PRONOUN = re.compile(
    r"\b(?:he|she|it|they|him|her|them|his|hers|its|their|theirs|this|that|these|those|there|then|both|each|such)\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_NAME = re.compile(r"\b[A-Z][a-z]{2,}\b")
_NAME_INSIDE = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]{2,}\b")
_THING = re.compile(r"\b(?:the|a|an|each|every|\d+)\s+([a-z]{3,})\b")


def stress(problem: Problem, scope: float, severity: int, seed: int) -> Problem:
    """The problem with sentences put into its question that do not bear on its answer.

    `scope` is how many there are for each sentence of the question, one at least; a smaller scope has some of the same.
    Severity 1: on another topic. 2: about the names or things of the question. 3: the same, with numbers of the size of
    the question's. They tell of other people and of objects that the question has not. They stand before the sentence
    that asks, at the beginning or before a sentence without a pronoun, so that nothing refers to them, and at the
    beginning alone where the question has quotes or several lines. Raises `TaskError` where a question names nobody and
    nothing, at severity 2 and above.
    """
    generator = random.Random(seed64("stress text", seed, severity, problem.id))
    starts = [0, *(match.end() for match in _END.finditer(problem.question))]
    wanted = max(1, round(scope * len(starts)))
    sentences = _distractors(problem, severity, generator)
    inserted: dict[int, list[str]] = {}
    places = _places(problem.question, starts)
    for _ in range(wanted):
        inserted.setdefault(generator.choice(places), []).append(next(sentences))
    ends = [*starts[1:], len(problem.question)]
    parts = (
        "".join(f"{each} " for each in inserted.get(start, ())) + problem.question[start:end]
        for start, end in zip(starts, ends, strict=True)
    )
    return replace(problem, question="".join(parts))


def _places(question: str, starts: list[int]) -> list[int]:
    """Where sentences may be put in."""
    if "\n" in question.strip() or '"' in question or "“" in question:
        return [0]
    ends = [*starts[1:], len(question)]
    asking = [start for start, end in zip(starts, ends, strict=True) if "?" in question[start:end]]
    last = asking[-1] if asking else starts[-1]
    free = (s for s, e in zip(starts, ends, strict=True) if 0 < s <= last and not _PRONOUN.search(question[s:e]))
    return [0, *free]


def _distractors(problem: Problem, severity: int, generator: random.Random) -> Iterator[str]:
    """Sentences without an end, the same one again only after all others."""
    if severity == OTHER_TOPIC:
        made = [f"The {place} {fact}." for place, fact in product(wording.PLACES, wording.FACTS)]
    else:
        made = list(_of_entities(problem, severity, generator))
    while True:
        generator.shuffle(made)
        yield from made


def _of_entities(problem: Problem, severity: int, generator: random.Random) -> Iterator[str]:
    question = problem.question
    names, things = _names(question), _things(question)
    if not names and not things:
        raise TaskError(
            f"problem `{problem.id}`: its question names nobody and nothing that a sentence could be about, so these "
            "questions cannot be put under stress; leave `stress` out"
        )
    if severity == SAME_ENTITIES:
        plain = wording.OF_NAMES if names else wording.OF_THINGS
        yield from (sentence.format(entity) for sentence, entity in product(plain, names or things))
        return
    counted = wording.NAMES_COUNTED if names else wording.THINGS_COUNTED
    objects = [each for each in wording.COUNTED if each[:-1] not in question.lower()]
    numbers = _plausible(problem)
    for sentence, entity in product(counted, names or things):
        yield sentence.format(entity, generator.choice(numbers), generator.choice(objects))


def _names(question: str) -> list[str]:
    """Who is called by name inside of sentences; where nobody is, at their beginnings."""
    found = [name for pattern in (_NAME_INSIDE, _NAME) for name in pattern.findall(question)]
    inside = set(_NAME_INSIDE.findall(question))
    names = [name for name in dict.fromkeys(found) if not {name.lower(), name.lower()[:-1]} & wording.NO_NAMES]
    return [name for name in names if name in inside] or names


def _things(question: str) -> list[str]:
    """What stands behind an article or a number."""
    return [thing for thing in dict.fromkeys(_THING.findall(question)) if thing not in wording.NO_THINGS]


def _plausible(problem: Problem) -> list[int]:
    """Whole numbers of the size of the question's, that are neither among these nor the answer."""
    there = [float(text.replace(",", "")) for text in _NUMBER.findall(problem.question)]
    taken = {*there, *(float(text.replace(",", "")) for text in _NUMBER.findall(problem.answer))}
    low, high = (2, 20) if not there else (max(2, int(min(there) / 2)), int(max(there) * 1.5) + 10)
    step = max(1, (high - low) // 50)
    return [number for number in range(low, high + 1, step) if number not in taken] or [high + 1]
