"""Evaluations by the tasks of lm-evaluation-harness, `suite: lm-eval:TASK`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.checkpoints import Checkpoint, chat_template
from pipelines.sections import fingerprint
from pipelines.stage import Number

if TYPE_CHECKING:
    from eval.compare import Evaluated
    from pipelines.context import StageContext

_PACKAGE = "lm_eval"


def missing() -> str | None:
    """A line on what to install, None where the harness is there."""
    from eval.bridge import available

    return available()


def versions(task: str) -> Mapping[str, Number]:
    """What results depend on: the harness's version, and the task's file where it is one."""
    from importlib.metadata import PackageNotFoundError, version

    file = {"task file": fingerprint(Path(task))} if Path(task).is_file() else {}
    try:
        return {"lm_eval": version(_PACKAGE), **file}
    except PackageNotFoundError:
        return file


def ask(
    context: StageContext,
    task: str,
    found: Sequence[Checkpoint],
    about: Mapping[str, Any],
    limit: int | None,
) -> tuple[dict[str, Any], dict[str, Any], list[Evaluated], dict[str, Any]]:
    """The suite's settings, the best constant answer, each checkpoint's trials, and the harness's own provenance.

    The harness answers for a checkpoint as a whole: one that was interrupted is asked again from the start, those
    before it are kept.

    Args:
        about: what `Suite.engine` says of the engine.
    """
    from eval.bridge import run
    from eval.compare import Evaluated
    from eval.suite import digest
    from eval.summary import constant_baseline
    from eval.trial import Trial
    from tasks.problem import Problem

    settings: dict[str, Any] = {}
    provenance: dict[str, Any] = {}
    results = []
    with context.progress(len(found), "lm-evaluation-harness, checkpoints") as bar:
        for checkpoint in found:

            def work(chunk: Sequence[Checkpoint]) -> Iterable[dict[str, Any]]:
                engine = context.engine(chunk[0].path)
                template = chat_template(chunk[0].path)
                result = run(task, engine, label=chunk[0].name, limit=limit, seed=context.seed, template=template)
                yield {"settings": result.settings, "provenance": result.provenance}
                for trial in result.trials:
                    yield trial.model_dump(mode="json")

            key = {"task": task, "limit": limit, "engine": dict(about), "seed": context.seed, **versions(task)}
            shards = context.shards(f"shards/{checkpoint.name}", {**key, "checkpoint": checkpoint.fingerprint})
            shards.run([checkpoint], 1, work, bar)
            first, *rows = shards.rows()
            provenance = first["provenance"]
            original = sum(each["n_samples"]["original"] for each in provenance["tasks"].values())
            data = {**first["settings"]["data"], "original": original}
            settings = {**first["settings"], "data": data, "engine": dict(about)}
            trials = [Trial.model_validate({**row, "suite_digest": digest(settings)}) for row in rows]
            results.append(Evaluated(checkpoint.name, settings, trials))
    golds = [Problem(trial.problem_id, "", trial.gold or "") for trial in results[0].trials if trial.sample == 0]
    return settings, asdict(constant_baseline(golds)), results, provenance
