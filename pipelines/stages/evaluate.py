"""evaluate: every checkpoint of the run answers the same problems; which one is better, and how sure is that?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from engines.base import Decoding
from engines.settings import INERT, what_matters
from pipelines.asked import asked, check_iterations, check_named
from pipelines.boards import asking_lines, check_boards
from pipelines.checkpoints import PRETRAINED, Checkpoint, identity_of, pairs_to_compare
from pipelines.composed import composed
from pipelines.errors import RunError
from pipelines.evaluation import (
    check_comparable,
    find_stored,
    numbers,
    provenance_of,
    provenance_of_run,
    result_of,
    warnings_of,
    write_result,
)
from pipelines.rewarded import check_reward
from pipelines.sections import DataSettings
from pipelines.source import nearest
from pipelines.stage import DataStageSettings, Number, StageResult, over_default
from pipelines.stressed import StressSettings, made_harder, put_under_stress
from pipelines.trained_on import overlap_of, warning

if TYPE_CHECKING:
    from eval.compare import Evaluated
    from eval.suite import Suite
    from eval.suite_file import SuiteFile
    from pipelines.context import StageContext
    from pipelines.recipe import Recipe

BRIDGED = "lm-eval:"
"""Before the name of a task of lm-evaluation-harness."""
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
"""It becomes a directory's name."""
RESERVED = frozenset({"shards", "images", PRETRAINED})
OF_THE_SUITE = ("data", "reward", "decoding", "system", "suffix")
"""What a named suite brings itself."""


class EvaluateStage(DataStageSettings):
    """Accuracy of each checkpoint with its interval, by kind of question, and paired differences between them."""

    kind: Literal["evaluate"] = "evaluate"
    suite: str | None = Field(
        None, description="a suite by name, rg:NAME, or path/to/file.yaml; it has data, prompt, reward and decoding"
    )
    data: str = Field("test", description="the data section whose problems are asked")
    reward: str = Field("exact_match", description="a registered reward; 1 or more is right")
    decoding: Decoding = Field(Decoding(), description="greedy unless a temperature is given")
    system: str | None = Field(None, description="system prompt; none is sent unless given")
    suffix: str = Field("", description="put after each question, such as an answer-format request")
    overrides: dict[str, Any] = Field(
        {},
        description="dotted keys of the suite set otherwise, which makes it another suite: decoding.temperature: 0.7",
    )
    k: list[int] = Field([1], min_length=1, description="the k of pass@k, pass^k and maj@k")
    n: int | None = Field(None, ge=1, description="answers to each problem; the largest k unless given")
    limit: int | None = Field(None, ge=1, description="ask only the first so many problems; marks the result partial")
    chunk: int = Field(
        512, ge=1, description="answers per shard: what is done again at most after a kill", json_schema_extra=INERT
    )
    control: str = Field(
        "random", description="the arm that other arms of the same round are compared with, if it is there"
    )
    checkpoints: dict[Label, str] = Field(
        {}, description="further checkpoints, a label and a path each; the last is compared with the first"
    )
    against: str | None = Field(
        None, description="directory of a run whose result on the same suite the last checkpoint is compared with"
    )
    stress: StressSettings | None = Field(
        None, description="ask the problems again made harder, by scope and severity; the answers stay"
    )
    allow: list[str] = Field([], description="settings in which that run may differ, such as engine")

    @field_validator("decoding", mode="before")
    @classmethod
    def _over_default(cls, value: Any) -> Any:
        return over_default(cls, "decoding", value)

    @field_validator("k")
    @classmethod
    def _positive(cls, k: list[int]) -> list[int]:
        if any(each < 1 for each in k):
            raise ValueError("k counts answers, so it is at least 1")
        return sorted(set(k))

    @field_validator("checkpoints")
    @classmethod
    def _free(cls, checkpoints: dict[str, str]) -> dict[str, str]:
        if taken := RESERVED & checkpoints.keys():
            raise ValueError(f"{', '.join(sorted(taken))}: is the name of something else here; choose another label")
        return checkpoints

    @field_validator("stress")
    @classmethod
    def _a_grid(cls, stress: StressSettings | None) -> StressSettings | None:
        if stress is not None:
            stress.grid()
        return stress

    @model_validator(mode="after")
    def _one_origin(self) -> EvaluateStage:
        if self.suite is None and self.overrides:
            raise ValueError("`overrides` are of a suite, and none is named")
        fields = type(self).model_fields
        given = [name for name in OF_THE_SUITE if getattr(self, name) != fields[name].default]
        if self.suite is not None and given:
            raise ValueError(
                f"{', '.join(given)}: the suite has its own; change it there, or by `overrides` "
                f"(`trivium eval`: suite.{given[0]}=…)"
            )
        return self

    gathers: ClassVar[bool] = True
    uses: ClassVar[tuple[str, ...]] = ("engine", "model")

    @property
    def sections(self) -> tuple[str, ...]:
        return self.uses if self.suite is not None else super().sections

    @property
    def samples(self) -> int:
        """Answers to each problem."""
        return self.n or max(self.k)

    def versions(self) -> Mapping[str, Number]:
        from eval import extract
        from rewards.registry import entry

        found: dict[str, Number] = {"extraction": extract.VERSION}
        if self.bridged:
            from pipelines import bridged

            found = dict(bridged.versions(str(self.suite).removeprefix(BRIDGED)))
        elif self.suite is not None:
            _, file = self.suite_file()
            versions = {name: entry(file.reference(name)).version for name in (file.reward, *file.also)}
            found |= {"suite": file.digest, "reward": versions[file.reward]}
            found |= {f"also {name}": versions[name] for name in file.also}
            files = DataSettings.model_validate(file.located(file.data)).files()
            found |= {f"suite data {key}": value for key, value in files.items()}
        else:
            found["reward"] = entry(self.reward).version
        found |= {f"checkpoint {label}": identity_of(path) for label, path in self.checkpoints.items()}
        if self.against is not None:
            found["against"] = find_stored(Path(self.against), self._name()).fingerprint
        return found

    def check(self, recipe: Recipe) -> Iterator[str]:
        if self.suite is None:
            yield from check_reward(recipe, self.data, self.reward, f"{self.name}.reward")
        elif self.bridged:
            yield from self._check_bridged()
        else:
            yield from self._check_suite()
        if recipe.engine.kind == "latent" and not self.bridged:
            yield from self._check_boards(recipe)
        decoding = self._decoding()
        if self.samples > 1 and recipe.engine.kind == "latent":
            yield f"{self.name}.n: a recurrent reasoner draws nothing, {self.samples} answers are one; give k: 1, n: 1"
        elif self.samples > 1 and decoding is not None and decoding.temperature == 0:
            where = "suite.decoding.temperature" if self.suite else "decoding.temperature"
            yield f"{self.name}.n: {self.samples} greedy answers are one answer; give {where}, such as 0.7, or n: 1"
        if self.k[-1] > self.samples:
            yield f"{self.name}.k: pass@{self.k[-1]} takes as many answers to a problem; n is {self.samples}, raise it"
        # The default is for recipes that have such an arm; another name is meant.
        if self.control != type(self).model_fields["control"].default and self.control not in recipe.arms:
            yield f"{self.name}.control: no arm is called `{self.control}`{nearest(self.control, recipe.arms)}"
        yield from check_iterations(recipe, self.checkpoints, str(self.name))
        yield from check_named(self.checkpoints, f"{self.name}.checkpoints", recipe.engine.kind)

    def run(self, context: StageContext) -> StageResult:
        found = asked(context, self.checkpoints)
        return self._run_bridged(context, found) if self.bridged else self._run(context, found)

    def _run(self, context: StageContext, found: Sequence[Checkpoint]) -> StageResult:
        from dataclasses import asdict

        from eval.compare import Evaluated
        from eval.grading import Grader, refused_golds, untold
        from eval.summary import constant_baseline
        from pipelines.asking import ask

        rows = context.rows(self.data) if self.suite is None else self.suite_file()[1].rows()
        problems = rows.problems[: self.limit]
        complete = self.suite is not None and self.suite_file()[1].problems is not None
        lost = 0 if complete else rows.lost
        original = len(rows.problems) + lost
        suite = self._suite(context, original)
        if not problems:
            where = suite.name if self.suite else f"data.{self.data}"
            raise RunError(f"evaluate: {where} has no problems with answers")
        grader = Grader.of(suite)
        refused = refused_golds(problems, grader.reward, every=self.suite is not None)
        if refused:
            raise RunError(
                f"{len(refused)} of {len(problems)} gold answers are not accepted by their own reward {suite.reward}, "
                f"such as that of problem {refused[0][0]} ({refused[0][1]}); mend the data or name another reward"
            )
        check_boards(suite.name, {each.name: each.path for each in found}, problems)
        settings = suite.settings(problems)
        others = self.others(suite.name)
        check_comparable(settings, [problem.id for problem in problems], others, self.allow)
        harder = None if self.stress is None else made_harder(context, self.stress, problems)
        results = []
        with context.progress(len(problems) * self.samples * len(found), "answering") as bar:
            for checkpoint in found:
                trials = ask(context, checkpoint, suite, grader, problems, self.samples, self.chunk, bar)
                results.append(Evaluated(checkpoint.name, settings, trials))
        baseline = asdict(constant_baseline(problems))
        provenance = provenance_of(suite, problems, found, self.samples, context.seed, context.recipe.engine)
        seen = overlap_of(context.recipe, problems)
        more: dict[str, Any] = composed(self._section(context.recipe), results)
        more |= {} if seen is None else {"overlap": seen}
        said = list(warning(seen))
        said += [f"{suite.name}: {line}"] if (line := untold(problems)) else []
        if lost:
            why = "; ".join(f"{number} of {reason}" for reason, number in rows.dropped)
            said.append(f"{lost} of the {original} problems of {suite.name} cannot be used and are left out: {why}")
        if harder is not None:
            stressed = put_under_stress(context, harder, found, suite, grader, results, self.chunk)
            more["stress"] = {"reports": stressed.reports, "dropped": stressed.dropped}
            said += stressed.warnings
        report = self._report(context, found, settings, baseline, results, provenance, more)
        return _said(report, len(problems), rows.left_out, said)

    def _run_bridged(self, context: StageContext, found: Sequence[Checkpoint]) -> StageResult:
        from pipelines import bridged

        assert self.suite is not None
        task = self.suite.removeprefix(BRIDGED)
        settings, baseline, results, more = bridged.ask(context, task, found, _about(context), self.limit)
        quoted = f"{settings['name']} · {settings['data']['problems']}/{settings['data']['original']}"
        first = results[0].trials[0].prompt
        about = provenance_of_run(found, context.seed, context.recipe.engine, first)
        provenance = {"quote": quoted, **about, "harness": more}
        report = self._report(context, found, settings, baseline, results, provenance)
        return _said(report, settings["data"]["problems"], {})

    def _report(
        self,
        context: StageContext,
        found: Sequence[Checkpoint],
        settings: Mapping[str, Any],
        baseline: Mapping[str, Any],
        results: Sequence[Evaluated],
        provenance: Mapping[str, Any],
        more: Mapping[str, Any] = MappingProxyType({}),
    ) -> dict[str, Any]:
        report = result_of(
            settings,
            baseline,
            results,
            pairs_to_compare(found, self.control),
            arms={each.name: each.arm for each in found},
            provenance=provenance,
            others=self.others(settings["name"]),
            ks=self.k,
            samples=self.samples,
            allow=self.allow,
        ) | dict(more)
        write_result(context.directory, report, results)
        for each in results:
            seconds = [trial.seconds for trial in each.trials if trial.seconds is not None]
            context.log({"answers_of": each.label, "seconds": sum(seconds) / len(seconds) if seconds else None})
        return report

    def suite_file(self) -> tuple[str, SuiteFile]:
        """The named suite's name and content. Raises `SuiteError`."""
        from eval.registry import find, label, with_overrides

        assert self.suite is not None
        file = find(self.suite)
        return with_overrides(label(self.suite), file, self.overrides)

    def _section(self, recipe: Recipe) -> dict[str, Any]:
        """Where the problems come from, with its paths led to where they are."""
        if self.suite is None:
            return recipe.data[self.data].model_dump()
        file = self.suite_file()[1]
        return file.located(file.data)

    @property
    def bridged(self) -> bool:
        """Whether lm-evaluation-harness brings the suite."""
        return self.suite is not None and self.suite.startswith(BRIDGED)

    def _name(self) -> str | None:
        return None if self.suite is None or self.bridged else self.suite_file()[0]

    def _decoding(self) -> Decoding | None:
        """None where there is no such suite, which another line says."""
        from eval.suite_file import SuiteError

        try:
            return self.decoding if self.suite is None or self.bridged else self.suite_file()[1].decoding
        except SuiteError:
            return None

    def _check_boards(self, recipe: Recipe) -> Iterator[str]:
        from eval.suite_file import SuiteError

        try:
            yield from asking_lines(recipe, self, self._section(recipe))
        except (SuiteError, KeyError):
            return  # Another line says that there is no such suite, or no such data.

    def _check_bridged(self) -> Iterator[str]:
        from pipelines import bridged

        if line := bridged.missing():
            yield f"{self.name}.suite: {line}"
        if self.samples > 1 or self.overrides or self.stress:
            yield f"{self.name}.suite: a task of the harness has its own number of answers and settings, and no stress"

    def _check_suite(self) -> Iterator[str]:
        from eval.suite_file import SuiteError
        from rewards.contract import RewardError
        from rewards.registry import entry
        from tasks.problem import TaskError

        where = f"{self.name}.suite"
        try:
            _, file = self.suite_file()
            for reward in (file.reward, *file.also):
                entry(file.reference(reward))
            file.look()
        except (SuiteError, RewardError, TaskError) as error:
            yield f"{where}: {error}"

    def _suite(self, context: StageContext, original: int) -> Suite:
        from eval.extract import Forms
        from eval.suite import Suite

        about = _about(context)
        if self.suite is not None:
            name, file = self.suite_file()
            suite = file.suite(name, about, original)
            # A recurrent reasoner reads a grid and no words about it, and answers with a grid and nothing around it.
            bare = replace(suite, system=None, prefix="", suffix="", forms=Forms("whole", "grid"))
            return bare if about["kind"] == "latent" else suite
        data = context.recipe.data[self.data]
        return Suite(
            name=f"{data.task}:{self.data}",
            reward=self.reward,
            decoding=self.decoding,
            system=self.system,
            suffix=self.suffix,
            data={**data.model_dump(mode="json"), "original": original},
            engine=about,
        )

    def others(self, suite: str) -> list[Evaluated]:
        """The last checkpoint of the run that `against` names, under that run's name."""
        if self.against is None:
            return []
        run = Path(self.against)
        last = find_stored(run, suite).evaluated()[-1]
        return [replace(last, label=f"{run.name}/{last.label}")]


def _about(context: StageContext) -> dict[str, Any]:
    """What of the engine two results must share to be compared: all that is set and not about speed or place."""
    values = what_matters(context.recipe.engine)
    return {key: value for key, value in values.items() if value is not None and key != "url"}


def _said(
    report: Mapping[str, Any], problems: int, left_out: Mapping[str, int], more: Sequence[str] = ()
) -> StageResult:
    return StageResult(
        rows_in=problems + sum(left_out.values()),
        rows_out=problems,
        dropped=left_out,
        numbers=numbers(report),
        warnings=[*more, *warnings_of(report)],
    )
