"""evaluate: every checkpoint of the run answers the same problems; which one is better, and how sure is that?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from engines.base import Decoding
from engines.settings import INERT, EndpointSettings
from pipelines.checkpoints import Checkpoint, checkpoints, pairs_to_compare
from pipelines.errors import RunError
from pipelines.files import whole, write_json
from pipelines.machine import code_revision, device, package_versions
from pipelines.rewarded import check_reward
from pipelines.source import nearest
from pipelines.stage import DataStageSettings, Number, StageResult, over_default

if TYPE_CHECKING:
    from eval.compare import Evaluated
    from eval.suite import Suite
    from eval.summary import Summary
    from eval.trial import Trial
    from pipelines.context import StageContext
    from pipelines.recipe import Recipe
    from tasks.problem import Problem

TRIALS_FILE = "trials.jsonl"
RESULT_FILE = "eval.json"


class EvaluateStage(DataStageSettings):
    """Accuracy of each checkpoint with its interval, by kind of question, and paired differences between them."""

    kind: Literal["evaluate"] = "evaluate"
    data: str = Field("test", description="the data section whose problems are asked")
    reward: str = Field("exact_match", description="a registered reward; 1 or more is right")
    decoding: Decoding = Field(Decoding(), description="greedy unless a temperature is given")
    system: str | None = Field(None, description="system prompt; none is sent unless given")
    suffix: str = Field("", description="put after each question, such as an answer-format request")
    limit: int | None = Field(None, ge=1, description="ask only the first so many problems; marks the result partial")
    chunk: int = Field(
        512, ge=1, description="problems per shard: what is done again at most after a kill", json_schema_extra=INERT
    )
    control: str = Field(
        "random", description="the arm that other arms of the same round are compared with, if it is there"
    )

    @field_validator("decoding", mode="before")
    @classmethod
    def _over_default(cls, value: Any) -> Any:
        return over_default(cls, "decoding", value)

    gathers: ClassVar[bool] = True
    uses: ClassVar[tuple[str, ...]] = ("engine", "model")

    def versions(self) -> Mapping[str, Number]:
        from eval import extract
        from rewards.registry import entry

        return {"reward": entry(self.reward).version, "extraction": extract.VERSION}

    def check(self, recipe: Recipe) -> Iterator[str]:
        yield from check_reward(recipe, self.data, self.reward, f"{self.name}.reward")
        # The default is for recipes that have such an arm; another name is meant.
        if self.control != type(self).model_fields["control"].default and self.control not in recipe.arms:
            yield f"{self.name}.control: no arm is called `{self.control}`{nearest(self.control, recipe.arms)}"

    def run(self, context: StageContext) -> StageResult:
        from eval.compare import Evaluated
        from eval.suite import Suite
        from eval.trial import dump

        found = checkpoints(context)
        if not found:
            raise RunError("evaluate: no stage before it made a checkpoint; add `tune` or `update` to the recipe")
        rows = context.rows(self.data)
        problems = rows.problems[: self.limit]
        if not problems:
            raise RunError(f"evaluate: data.{self.data} has no problems with answers")
        engine = context.recipe.engine
        if isinstance(engine, EndpointSettings) and engine.model and len(found) > 1:
            names = ", ".join(each.name for each in found)
            raise RunError(
                f"engine.model: {engine.model} would answer for all of {names}; leave it out and serve them all"
            )
        number = getattr(engine, "iterations", None)
        iterations = {} if number is None else {"iterations": number}  # absent, not None: other results stay comparable
        suite = Suite(
            name=f"{context.recipe.data[self.data].task}:{self.data}",
            reward=self.reward,
            decoding=self.decoding,
            system=self.system,
            suffix=self.suffix,
            data={**context.recipe.data[self.data].model_dump(mode="json"), "original": len(rows.problems)},
            engine={"kind": engine.kind, "dtype": getattr(engine, "dtype", None), **iterations},
        )
        settings = suite.settings(problems)
        results = []
        with context.progress(len(problems) * len(found), "answering") as bar:
            for checkpoint in found:
                trials = list(self._trials(context, checkpoint, suite, settings, problems, bar.advance))
                target = context.directory / checkpoint.name
                target.mkdir(exist_ok=True)
                with whole(target / TRIALS_FILE) as path:
                    path.write_text("".join(dump(trial) + "\n" for trial in trials), encoding="utf-8")
                results.append(Evaluated(checkpoint.name, settings, trials))
        report = self._report(context, suite, settings, problems, results, found)
        write_json(context.directory / RESULT_FILE, report)
        return StageResult(
            rows_in=len(problems) + sum(rows.left_out.values()),
            rows_out=len(problems),
            dropped=rows.left_out,
            numbers=_numbers(report),
            warnings=[f"{each['label']}: {text}" for each in report["checkpoints"] for text in each["warnings"]],
        )

    def _trials(
        self,
        context: StageContext,
        checkpoint: Checkpoint,
        suite: Suite,
        settings: dict[str, Any],
        problems: Sequence[Problem],
        advance: Any,
    ) -> Iterator[Trial]:
        from eval.evaluate import evaluate
        from eval.suite import digest
        from eval.trial import Trial
        from rewards.registry import load

        reward = load(self.reward)
        name = digest(settings)

        def work(chunk: Sequence[Problem]) -> Iterable[dict[str, Any]]:
            engine = context.engine(checkpoint.path)
            for trial in evaluate(
                chunk, engine, reward, suite, label=checkpoint.name, suite_digest=name, seed=context.seed
            ):
                yield trial.model_dump(mode="json")

        key = {
            "suite": settings,
            "sections": context.sections,
            "checkpoint": checkpoint.fingerprint,
            "seed": context.seed,
        }
        shards = context.shards(f"shards/{checkpoint.name}", key)
        shards.run(problems, self.chunk, work, advance)
        for row in shards.rows():
            yield Trial.model_validate(row)

    def _report(
        self,
        context: StageContext,
        suite: Suite,
        settings: dict[str, Any],
        problems: Sequence[Problem],
        results: Sequence[Evaluated],
        found: Sequence[Checkpoint],
    ) -> dict[str, Any]:
        from eval.compare import adjust, compare, verdict
        from eval.suite import digest
        from eval.summary import constant_baseline, summarise

        by_name = {result.label: result for result in results}
        pairs = pairs_to_compare(found, self.control)
        compared = adjust([compare(by_name[a], by_name[b]) for a, b in pairs])
        original = settings["data"]["original"]
        revision, uncommitted = code_revision()
        return {
            "suite": settings | {"digest": digest(settings)},
            "partial": len(problems) < original,
            "problems": {"used": len(problems), "original": original},
            "baseline": asdict(constant_baseline(problems)),
            "checkpoints": [
                _summary(summarise(result.trials), checkpoint)
                for result, checkpoint in zip(results, found, strict=True)
            ],
            "comparisons": [
                {"roles": roles, **asdict(each), "verdict": verdict(each, seeds=1)}
                for each, roles in zip(compared, pairs.values(), strict=True)
            ],
            "provenance": {
                "quote": quote(settings, self.limit is not None and len(problems) < original),
                "first_prompt": [dict(turn) for turn in suite.messages(problems[0])],
                "engine": context.recipe.engine.model_dump(mode="json"),
                "seed": context.seed,
                "device": device(),
                "packages": package_versions(),
                "revision": revision,
                "uncommitted_changes": uncommitted,
                "checkpoints": {each.name: each.fingerprint for each in found},
            },
        }


def quote(settings: dict[str, Any], partial: bool) -> str:
    """One line that says how a number was made."""
    data, decoding, engine = settings["data"], settings["decoding"], settings["engine"]
    temperature = decoding["temperature"]
    parts = [
        settings["name"],
        f"{data['problems']}/{data['original']}" + (" partial" if partial else ""),
        "greedy" if temperature == 0 else f"T={temperature}",
        f"at most {decoding['max_new_tokens']} tokens",
        f"{settings['reward']['name']} v{settings['reward']['version']}, strict extraction v{settings['extraction']}",
        "n=1",
        " ".join(
            f"{value} iterations" if name == "iterations" else str(value)
            for name, value in engine.items()
            if value is not None
        ),
    ]
    return " · ".join(parts)


def _summary(summary: Summary, checkpoint: Checkpoint) -> dict[str, Any]:
    return {"arm": checkpoint.arm, **asdict(summary), "file": f"{checkpoint.name}/{TRIALS_FILE}"}


def _numbers(report: dict[str, Any]) -> dict[str, Number]:
    numbers: dict[str, Number] = {
        f"accuracy {each['label']}": each["accuracy"]["value"] for each in report["checkpoints"]
    }
    for each in report["comparisons"]:
        numbers[f"{each['a']} minus {each['b']}"] = each["difference"]["estimate"]["value"]
    if report["partial"]:
        numbers["partial"] = f"{report['problems']['used']} of {report['problems']['original']} problems"
    return numbers
