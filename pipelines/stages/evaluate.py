"""evaluate: every checkpoint of the run answers the same problems; which one is better, and how sure is that?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from engines.base import Decoding
from engines.settings import INERT
from pipelines.errors import RunError
from pipelines.files import whole, write_json
from pipelines.machine import code_revision, device, package_versions
from pipelines.stage import DataStageSettings, Number, StageHandle, StageResult, over_default

if TYPE_CHECKING:
    from eval.compare import Evaluated
    from eval.suites import Suite
    from eval.summary import Summary
    from eval.trial import Trial
    from pipelines.context import StageContext
    from pipelines.recipe import Recipe
    from tasks.problem import Problem

CHECKPOINT_KINDS = ("tune", "update")
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
    uses: ClassVar[tuple[str, ...]] = ("engine",)

    def versions(self) -> Mapping[str, Number]:
        from eval import extract
        from rewards.registry import entry

        return {"reward": entry(self.reward).version, "extraction": extract.VERSION}

    def check(self, recipe: Recipe) -> Iterator[str]:
        from rewards.registry import RewardError, entry

        try:
            entry(self.reward)
        except RewardError as error:
            yield f"{self.name}.reward: {error}"

    def run(self, context: StageContext) -> StageResult:
        from eval.compare import Evaluated
        from eval.suites import Suite
        from eval.trial import dump

        checkpoints = [handle for handle in context.upstream if handle.kind in CHECKPOINT_KINDS]
        if not checkpoints:
            raise RunError("evaluate: no stage before it made a checkpoint; add `tune` or `update` to the recipe")
        rows = context.rows(self.data)
        problems = rows.problems[: self.limit]
        if not problems:
            raise RunError(f"evaluate: data.{self.data} has no problems with answers")
        engine = context.recipe.engine
        suite = Suite(
            name=f"{context.recipe.data[self.data].task}:{self.data}",
            reward=self.reward,
            decoding=self.decoding,
            system=self.system,
            suffix=self.suffix,
            data={**context.recipe.data[self.data].model_dump(mode="json"), "original": len(rows.problems)},
            engine={"kind": engine.kind, "dtype": getattr(engine, "dtype", None)},
        )
        settings = suite.settings(problems)
        results = []
        with context.progress(len(problems) * len(checkpoints), "answering") as bar:
            for handle in checkpoints:
                trials = list(self._trials(context, handle, suite, settings, problems, bar.advance))
                target = context.directory / _name(handle)
                target.mkdir(exist_ok=True)
                with whole(target / TRIALS_FILE) as path:
                    path.write_text("".join(dump(trial) + "\n" for trial in trials), encoding="utf-8")
                results.append(Evaluated(_name(handle), settings, trials))
        report = self._report(context, suite, settings, problems, results, checkpoints)
        write_json(context.directory / RESULT_FILE, report)
        return StageResult(
            rows_in=len(problems) + sum(rows.left_out.values()),
            rows_out=len(problems),
            dropped=rows.left_out,
            numbers=_numbers(report),
        )

    def _trials(
        self,
        context: StageContext,
        handle: StageHandle,
        suite: Suite,
        settings: dict[str, Any],
        problems: Sequence[Problem],
        advance: Any,
    ) -> Iterator[Trial]:
        from eval.evaluate import evaluate
        from eval.suites import digest
        from eval.trial import Trial
        from rewards.registry import load

        reward = load(self.reward)
        name = digest(settings)

        def work(chunk: Sequence[Problem]) -> Iterable[dict[str, Any]]:
            engine = context.engine(handle.directory / "checkpoint")
            for trial in evaluate(
                chunk, engine, reward, suite, label=_name(handle), suite_digest=name, seed=context.seed
            ):
                yield trial.model_dump(mode="json")

        key = {
            "suite": settings,
            "sections": context.sections,
            "checkpoint": handle.manifest.fingerprint,
            "seed": context.seed,
        }
        shards = context.shards(f"shards/{_name(handle)}", key)
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
        checkpoints: Sequence[StageHandle],
    ) -> dict[str, Any]:
        from eval.compare import adjust, compare, verdict
        from eval.suites import digest
        from eval.summary import constant_baseline, summarise

        by_name = {result.label: result for result in results}
        pairs = _pairs(context.upstream, self.control)
        compared = adjust([compare(by_name[a], by_name[b]) for a, b in pairs])
        original = settings["data"]["original"]
        revision, uncommitted = code_revision()
        return {
            "suite": settings | {"digest": digest(settings)},
            "partial": len(problems) < original,
            "problems": {"used": len(problems), "original": original},
            "baseline": asdict(constant_baseline(problems)),
            "checkpoints": [
                _summary(summarise(result.trials), handle) for result, handle in zip(results, checkpoints, strict=True)
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
                "checkpoints": {_name(handle): handle.manifest.fingerprint for handle in checkpoints},
            },
        }


def previous_of(handle: StageHandle, upstream: Sequence[StageHandle]) -> StageHandle | None:
    """The latest checkpoint among the stages that `handle` was made from, directly or through others."""
    by_name = {_name(each): each for each in upstream}
    ancestors: set[str] = set()
    pending = [_name(handle)]
    while pending:
        new = [name for name in by_name[pending.pop()].manifest.inputs if name in by_name and name not in ancestors]
        ancestors.update(new)
        pending += new
    line = [each for each in upstream if _name(each) in ancestors and each.kind in CHECKPOINT_KINDS]
    return line[-1] if line else None


def _name(handle: StageHandle) -> str:
    """The stage's own name: that of the handle carries the seed's directory where a recipe has several."""
    return handle.manifest.stage


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
        " ".join(str(value) for value in engine.values() if value is not None),
    ]
    return " · ".join(parts)


def _pairs(upstream: Sequence[StageHandle], control: str) -> dict[tuple[str, str], list[str]]:
    """(a, b) -> why they are compared: `previous`, `first`, `control`."""
    pairs: dict[tuple[str, str], list[str]] = {}
    checkpoints = [handle for handle in upstream if handle.kind in CHECKPOINT_KINDS]
    names = {_name(handle) for handle in checkpoints}
    for handle in checkpoints:
        previous = previous_of(handle, upstream)
        against = f"{_name(handle).partition('@')[0]}@{control}"
        for role, other in (
            ("previous", _name(previous) if previous else None),
            ("first", _name(checkpoints[0])),
            ("control", against if against in names else None),
        ):
            if other is not None and other != _name(handle):
                pairs.setdefault((_name(handle), other), []).append(role)
    return pairs


def _summary(summary: Summary, handle: StageHandle) -> dict[str, Any]:
    return {"arm": handle.arm, **asdict(summary), "file": f"{_name(handle)}/{TRIALS_FILE}"}


def _numbers(report: dict[str, Any]) -> dict[str, Number]:
    numbers: dict[str, Number] = {
        f"accuracy {each['label']}": each["accuracy"]["value"] for each in report["checkpoints"]
    }
    for each in report["comparisons"]:
        numbers[f"{each['a']} minus {each['b']}"] = each["difference"]["estimate"]["value"]
    if report["partial"]:
        numbers["partial"] = f"{report['problems']['used']} of {report['problems']['original']} problems"
    return numbers
