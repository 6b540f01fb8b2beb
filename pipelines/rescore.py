"""Grades the saved trials of a run again, by another reward or another form of the answer: no model, no torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.composed import composed
from pipelines.errors import RunError
from pipelines.evaluation import Stored, originals, quote, result_of, sign, write_result
from pipelines.files import remove
from pipelines.machine import Spent
from pipelines.manifest import Manifest
from pipelines.sections import DataSettings

if TYPE_CHECKING:
    from eval.suite import Suite
    from eval.suite_file import SuiteFile
    from eval.trial import Outcome, Trial
    from tasks.problem import Problem

KIND = "rescore"


@dataclass(frozen=True, slots=True)
class Rescored:
    """A new evaluation beside an old one. `moved`: checkpoint -> (outcome before, outcome now) -> trials."""

    of: Stored
    directory: Path
    result: Mapping[str, Any]
    moved: Mapping[str, Mapping[tuple[Outcome, Outcome], int]]


def rescore(run: Path, reward: str | None, forms: Mapping[str, str], suite: str | None) -> Iterator[Rescored]:
    """Each evaluation of a run, or of one suite in it, graded again; the old numbers stay.

    Args:
        reward: a reference; None keeps each suite's own.
        forms: `strict` and `flexible`, where they are to be others.

    Raises:
        RunError: there is no such evaluation, or its problems are no longer those that were asked.
        RewardError: there is no such reward.
    """
    # What the harness graded, it graded by itself.
    found = [each for each in originals(run) if "extraction" in each.result["suite"]]
    chosen = [each for each in found if suite is None or each.is_of(suite)]
    if not chosen:
        there = ", ".join(dict.fromkeys(each.result["suite"]["name"] for each in found)) or "none"
        what = "evaluation" if suite is None else f"evaluation on {suite}"
        raise RunError(f"{run}: no {what} to score again; suites evaluated there: {there}")
    for each in chosen:
        yield _rescore(each, reward, forms)


def _rescore(old: Stored, reward: str | None, forms: Mapping[str, str]) -> Rescored:
    from eval.compare import Evaluated
    from eval.grading import Grader
    from eval.suite import digest

    spent = Spent()
    suite = suite_of(old.settings, reward, forms)
    if file := _file(old):  # a reward that the command names is looked for where that is called
        rewards = {name: place for name, place in file.rewards.items() if name != reward}
        suite = replace(suite, rewards=rewards)
    problems = _problems(old)
    settings = suite.settings(problems)
    grader = Grader.of(suite)
    results, moved = [], {}
    for side in old.evaluated():
        trials = list(_graded(suite, grader, digest(settings), problems, side.trials, side.label))
        pairs = zip(side.trials, trials, strict=True)
        moved[side.label] = Counter((a.outcome, b.outcome) for a, b in pairs if a.outcome != b.outcome)
        results.append(Evaluated(side.label, settings, trials))
    before = old.result["provenance"]
    result = result_of(
        settings,
        old.result["baseline"],
        results,
        {(each["a"], each["b"]): each["roles"] for each in old.result["comparisons"] if "against" not in each["roles"]},
        arms={each["label"]: each["arm"] for each in old.result["checkpoints"]},
        ks=old.result["ks"],
        samples=old.result["samples"],
        provenance={
            **before,
            "quote": quote(settings, old.result["samples"], before.get("iterations", {})),
            "rescored": {"stage": old.name},
        },
    )
    result |= composed(_section(old), results)
    directory = _place(old, suite)
    remove(directory)
    directory.mkdir()
    write_result(directory, result, results)
    made_of = Manifest.read(old.directory)
    assert made_of is not None
    source = {"settings": {"reward": suite.reward, "answer": asdict(suite.forms)}, "suite": digest(settings)}
    sign(
        directory, result, kind=KIND, source=source, inputs={made_of.stage: made_of.fingerprint}, seed=made_of.seed,
        problems=len(problems), spent=spent,
    )  # fmt: skip
    return Rescored(old, directory, result, moved)


def suite_of(settings: Mapping[str, Any], reward: str | None = None, forms: Mapping[str, str] | None = None) -> Suite:
    """The suite that stored settings are of, with another reward or other forms of the answer where these are given."""
    from engines.base import Decoding
    from eval.extract import Forms, check_forms
    from eval.protocol import read_protocol
    from eval.suite import Suite

    known = {field.name for field in fields(Forms)}
    chosen = Forms(**{key: value for key, value in settings["extraction"].items() if key in known} | dict(forms or {}))
    try:
        check_forms(chosen)
    except ValueError as error:
        raise RunError(str(error)) from None
    decoding = {**settings["decoding"], "stop": tuple(settings["decoding"].get("stop", ()))}
    return Suite(
        name=settings["name"],
        reward=reward or settings["reward"]["name"],
        decoding=Decoding(**decoding),
        system=settings["prompt"]["system"],
        prefix=settings["prompt"]["prefix"],
        suffix=settings["prompt"]["suffix"],
        forms=chosen,
        also=tuple(settings["also"]),
        version=settings["version"],
        protocol=read_protocol(settings),
        data={key: value for key, value in settings["data"].items() if key not in ("problems", "sha")},
        engine=settings["engine"],
    )


def _graded(
    suite: Suite, grader: Any, digest: str, problems: Sequence[Problem], trials: Sequence[Trial], label: str
) -> Iterator[Trial]:
    from eval.grading import grade

    by_id = {problem.id: problem for problem in problems}
    missing = next((trial.problem_id for trial in trials if trial.problem_id not in by_id), None)
    if missing is not None:
        raise RunError(f"{label}: problem {missing} was asked and is no longer in the data")
    verdicts = grade(
        suite,
        grader,
        [by_id[trial.problem_id] for trial in trials],
        [trial.prompt for trial in trials],
        [trial.completion for trial in trials],
        [trial.finish for trial in trials],
    )
    for trial, verdict in zip(trials, verdicts, strict=True):
        reason = trial.reason if trial.finish == "error" else verdict.reason
        found = {field.name: getattr(verdict, field.name) for field in fields(verdict)} | {"reason": reason}
        yield trial.model_copy(update={**found, "suite_digest": digest})


def _problems(old: Stored) -> Sequence[Problem]:
    """The problems that were asked. Raises `RunError` where the data are others now."""
    from eval.suite import problems_sha

    data = old.settings["data"]
    problems = DataSettings.model_validate(_section(old)).load().problems[: data["problems"]]
    if problems_sha(problems) != data["sha"]:
        raise RunError(f"{old.name}: the data of {old.settings['name']} have changed since; evaluate it again")
    return problems


def _section(old: Stored) -> dict[str, Any]:
    """Where its problems came from, with the paths led from where the suite's file is, if that is still there."""
    data = old.settings["data"]
    section = {key: value for key, value in data.items() if key not in ("problems", "sha", "original")}
    file = _file(old)
    return file.located(section) if file else section


def _file(old: Stored) -> SuiteFile | None:
    """The suite's file; None where it was none, or is no longer there."""
    from eval.registry import find
    from eval.suite_file import SuiteError

    try:
        return find(old.reference) if old.reference else None
    except SuiteError:
        return None


def _place(old: Stored, suite: Suite) -> Path:
    """Beside the old evaluation, under a name that says what grades: an earlier one of that name is replaced."""
    name = suite.reward.rpartition(":")[2] if ".py:" in suite.reward else suite.reward
    forms = "" if suite.forms == suite_of(old.settings).forms else f"-{suite.forms.strict}-{suite.forms.flexible}"
    plain = re.sub(r"[^A-Za-z0-9_-]", "-", f"{name}{forms}")
    return old.directory.parent / f"{KIND}-{plain}-{old.directory.name}"
