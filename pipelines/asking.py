"""Asks a checkpoint the problems of a suite, shard by shard, and keeps what it answered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.checkpoints import Checkpoint
from pipelines.shards import Shards

if TYPE_CHECKING:
    from eval.evaluate import Asked
    from eval.grading import Grader
    from eval.suite import Suite
    from eval.trial import Trial
    from pipelines.context import StageContext
    from pipelines.progress import Progress
    from tasks.problem import Problem


def ask(
    context: StageContext,
    checkpoint: Checkpoint,
    suite: Suite,
    grader: Grader,
    problems: Sequence[Problem],
    samples: int,
    chunk: int,
    bar: Progress,
    part: str | None = None,
) -> list[Trial]:
    """`samples` trials of each problem, in the order of the problems. Those of an earlier call with another number of
    samples are kept, and only what is missing is asked. `part`: whose shards they are; the checkpoint's unless given.
    """
    from eval.evaluate import Asked, evaluate
    from eval.suite import digest
    from eval.trial import Trial

    settings = suite.settings(problems)
    name = digest(settings)

    def work(chunk_of: Sequence[Asked]) -> Iterable[dict[str, Any]]:
        engine = context.engine(checkpoint.path)
        for trial in evaluate(
            chunk_of, engine, grader, suite, label=checkpoint.name, suite_digest=name, seed=context.seed
        ):
            yield trial.model_dump(mode="json") | {"seconds": trial.seconds}

    key = {
        "suite": settings,
        "sections": context.sections,
        "checkpoint": checkpoint.fingerprint,
        "seed": context.seed,
        "factors": list(suite.factors),
    }
    place = f"shards/{part or checkpoint.name}"
    trials = []
    for first, end in _parts(context, place, key, samples):
        shards = context.shards(f"{place}/{first}-{end}", key)
        # All answers to one problem follow each other, so that an engine can share the work on their prompt.
        asked = [Asked(problem, sample) for problem in problems for sample in range(first, end)]
        shards.run(asked, chunk, work, bar)
        trials += [Trial.model_validate(row) for row in shards.rows()]
    place_of = {problem.id: number for number, problem in enumerate(problems)}
    wanted = [trial for trial in trials if trial.sample < samples]
    return sorted(wanted, key=lambda trial: (place_of[trial.problem_id], trial.sample))


def _parts(context: StageContext, place: str, key: Mapping[str, Any], samples: int) -> list[tuple[int, int]]:
    """Ranges of sample numbers that make up 0…samples, those that are done already first."""
    folder = context.directory / place
    names = [re.fullmatch(r"(\d+)-(\d+)", path.name) for path in (folder.iterdir() if folder.is_dir() else ())]
    there = sorted((int(name[1]), int(name[2])) for name in names if name)
    parts, done = [], 0
    for first, end in there:
        if first == done < samples and Shards(folder / f"{first}-{end}", key).complete:
            parts.append((first, end))
            done = end
    return [*parts, (done, samples)] if done < samples else parts
