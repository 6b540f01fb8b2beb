"""Puts problems to a model, reads its answers, grades them."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from engines.base import Engine, Generation, Request
from eval.grading import Grader, grade
from eval.suite import Suite, file_sha
from eval.trial import Trial
from tasks.problem import Problem

GROUP = 64
"""Answers that are graded in one call of a reward, while the engine writes the next."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One problem to be answered once: `sample` counts its answers from 0."""

    problem: Problem
    sample: int = 0


def evaluate(
    asked: Sequence[Asked],
    engine: Engine,
    grader: Grader,
    suite: Suite,
    *,
    label: str,
    suite_digest: str,
    seed: int = 0,
) -> Iterator[Trial]:
    """One trial for each of `asked`, in order, as soon as its group is graded.

    A trial is a function of its problem, the sample's number, the weights and the suite alone. So a caller that keeps
    trials may come back with those that are missing, and ends with the same set. Groups are graded in a thread while
    the engine goes on.

    The rewards get the extracted answer, never the whole completion, and are not called where there is none. Their
    columns are `answer` (gold), `question`, `kind`, `image` and those of the problem.

    Raises:
        RewardError: a reward broke its contract.
        EngineError: the engine cannot serve the requests.
    """
    requests = [
        Request(
            f"{each.problem.id}#{each.sample}" if each.sample else each.problem.id,
            suite.messages(each.problem),
            each.problem.image,
            suite.decoding,
            trial_seed(seed, each.problem.id, each.sample),
        )
        for each in asked
    ]
    pending: deque[Future[list[Trial]]] = deque()
    with ThreadPoolExecutor(1, "grading") as pool:
        group: list[Generation] = []
        done, before = 0, time.perf_counter()
        for generation in engine.generate(requests):
            group.append(generation)
            if len(group) == GROUP or done + len(group) == len(requests):
                part = slice(done, done + len(group))
                now = time.perf_counter()
                each = (now - before) / len(group)
                work = functools.partial(_grade_group, suite, grader, label, suite_digest, each)
                pending.append(pool.submit(work, asked[part], requests[part], group))
                done, before, group = done + len(group), now, []
            while pending and pending[0].done():
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


def trial_seed(seed: int, problem_id: str, sample: int = 0) -> int:
    """A function of the problem and the sample's number alone, in [0, 2³¹): neither order nor number of samples
    changes it."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{problem_id}/{sample}".encode()).digest()[:4], "big") >> 1


def _grade_group(
    suite: Suite,
    grader: Grader,
    label: str,
    suite_digest: str,
    seconds: float,
    asked: Sequence[Asked],
    requests: Sequence[Request],
    generations: Sequence[Generation],
) -> list[Trial]:
    problems = [each.problem for each in asked]
    with grader.one_at_a_time:
        verdicts = grade(
            suite,
            grader,
            problems,
            [request.messages for request in requests],
            [generation.text for generation in generations],
            [generation.finish for generation in generations],
        )
    return [
        Trial(
            label=label,
            suite=suite.name,
            suite_digest=suite_digest,
            problem_id=each.problem.id,
            cluster=each.problem.cluster or each.problem.id,
            sample=each.sample,
            seed=request.seed,
            prompt_sha=_prompt_sha(request),
            prompt=tuple(dict(turn) for turn in request.messages),
            image=each.problem.image,
            gold=each.problem.answer,
            prompt_tokens=generation.prompt_tokens,
            completion=generation.text,
            finish=generation.finish,
            completion_tokens=len(generation.token_ids),
            extract=verdict.extract,
            reward=verdict.reward,
            outcome=verdict.outcome,
            reason=f"error: {generation.error}" if generation.finish == "error" else verdict.reason,
            scores=verdict.scores,
            checks=verdict.checks,
            factors=_factors(each.problem, suite.factors),
            seconds=seconds,
        )
        for each, request, generation, verdict in zip(asked, requests, generations, verdicts, strict=True)
    ]


def _factors(problem: Problem, names: Sequence[str]) -> dict[str, str]:
    """The kind, and the named columns that the problem has."""
    found = {"kind": problem.kind} if problem.kind else {}
    return found | {name: str(value) for name in names if (value := problem.columns.get(name)) not in (None, "")}


def _prompt_sha(request: Request) -> str:
    content = [[turn["role"], turn["content"]] for turn in request.messages]
    image = None if request.image is None else file_sha(request.image)
    return hashlib.sha256(json.dumps([content, image]).encode()).hexdigest()[:16]
