"""Puts problems to a model, reads its answers, grades them."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from engines.base import Engine, Generation, Request
from eval.extract import Extraction, extract
from eval.suite import Suite
from eval.trial import Extract, Outcome, Rewards, Trial
from rewards.contract import Reward, score
from tasks.problem import Problem, column_names

CHUNK = 256
"""Problems that are generated together and then graded in one call of the reward."""


def evaluate(
    problems: Sequence[Problem],
    engine: Engine,
    reward: Reward,
    suite: Suite,
    *,
    label: str,
    suite_digest: str,
    seed: int = 0,
) -> Iterator[Trial]:
    """One trial per problem, in order, as soon as its chunk is graded.

    A trial is a function of its problem, the weights and the suite alone. So a caller that keeps trials may come back
    with those problems that are missing, and ends with the same set.

    The reward gets the extracted answer, never the whole completion, and is not called where there is none. Its columns
    are `answer` (gold), `question`, `kind` and `image`.

    Raises:
        RewardError: the reward broke its contract.
        EngineError: the engine cannot serve the requests.
    """
    for start in range(0, len(problems), CHUNK):
        chunk = problems[start : start + CHUNK]
        requests = [
            Request(problem.id, suite.messages(problem), problem.image, suite.decoding, trial_seed(seed, problem.id))
            for problem in chunk
        ]
        generations = list(engine.generate(requests))
        extractions = [
            extract(generation.text, problem.answer) for generation, problem in zip(generations, chunk, strict=True)
        ]
        strict = _grade([each.strict for each in extractions], chunk, requests, generations, reward)
        flexible = _grade([each.flexible for each in extractions], chunk, requests, generations, reward)
        for row, (problem, request, generation) in enumerate(zip(chunk, requests, generations, strict=True)):
            outcome, reason = _verdict(generation, extractions[row], *strict[row])
            yield Trial(
                label=label,
                suite=suite.name,
                suite_digest=suite_digest,
                problem_id=problem.id,
                cluster=problem.cluster or problem.id,
                sample=0,
                seed=request.seed,
                prompt_sha=_prompt_sha(request),
                prompt_tokens=generation.prompt_tokens,
                completion=generation.text,
                finish=generation.finish,
                completion_tokens=len(generation.token_ids),
                extract=Extract(strict=extractions[row].strict, flexible=extractions[row].flexible),
                reward=Rewards(strict=strict[row][0], flexible=flexible[row][0]),
                outcome=outcome,
                reason=reason,
                factors={"kind": problem.kind} if problem.kind else {},
            )


def trial_seed(seed: int, problem_id: str, sample: int = 0) -> int:
    """A function of the problem and the sample's number alone, in [0, 2³¹): neither order nor number of samples
    changes it."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{problem_id}/{sample}".encode()).digest()[:4], "big") >> 1


def _grade(
    answers: Sequence[str | None],
    problems: Sequence[Problem],
    requests: Sequence[Request],
    generations: Sequence[Generation],
    reward: Reward,
) -> list[tuple[float | None, str | None]]:
    """The reward of each extracted answer, and the note on it; (None, None) where there was none to grade."""
    rows = [
        row
        for row, (answer, generation) in enumerate(zip(answers, generations, strict=True))
        if answer is not None and generation.finish == "stop"
    ]
    given = [problems[row] for row in rows]
    scores = score(
        reward,
        [requests[row].messages for row in rows],
        [answers[row] for row in rows],
        answer=[problem.answer for problem in given],
        question=[problem.question for problem in given],
        kind=[problem.kind for problem in given],
        image=[problem.image for problem in given],
        **{name: [problem.columns.get(name) for problem in given] for name in column_names(problems)},
    )
    graded: list[tuple[float | None, str | None]] = [(None, None)] * len(answers)
    for place, row in enumerate(rows):
        graded[row] = scores.values[place], scores.notes.get(place)
    return graded


def _verdict(
    generation: Generation, extraction: Extraction, reward: float | None, note: str | None
) -> tuple[Outcome, str | None]:
    if generation.finish == "error":
        return "ungraded", f"error: {generation.error}"
    if generation.finish == "length" or extraction.unfinished:
        return "truncated", None
    if extraction.strict is None or note == "unparsed":
        return "unparsed", None
    if reward is None:
        return "ungraded", f"the reward gave no score: {note}" if note else "the reward gave no score"
    return ("correct" if reward >= 1 else "wrong"), None


def _prompt_sha(request: Request) -> str:
    content = [[turn["role"], turn["content"]] for turn in request.messages]
    image = None if request.image is None else _file_sha(request.image)
    return hashlib.sha256(json.dumps([content, image]).encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=1 << 14)
def _file_sha(path: str) -> str | None:
    """None where the file cannot be read; the engine has said so in the trial's reason."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return None
