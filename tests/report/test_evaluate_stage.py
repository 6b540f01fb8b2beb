"""The evaluate stage: every checkpoint, the right pairs, strict JSON, and nothing asked twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from engines.base import Generation, Request
from eval.trial import read
from pipelines.checkpoints import previous_of
from pipelines.context import StageContext
from pipelines.errors import Interrupted, RunError
from pipelines.manifest import Manifest
from pipelines.recipe import Recipe
from pipelines.stage import StageHandle, StageResult
from pipelines.stages.evaluate import EvaluateStage
from tasks.problem import Rows

STAGES = ("tune", "generate", "filter", "update", "filter@random", "update@random")
CHECKPOINTS = ("tune", "update", "update@random")


def refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is no JSON")


@pytest.fixture
def copy(run_directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_directory, tmp_path / "demo"))


@pytest.fixture
def context(copy: Path, rows: Rows, context_after: Callable[..., StageContext]) -> StageContext:
    shutil.rmtree(copy / "evaluate")
    return context_after("evaluate", copy, rows, [copy / name for name in STAGES])


def result_of(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "eval.json").read_text(), parse_constant=refuse)  # type: ignore[no-any-return]


def test_numbers_are_those_of_the_trials(run_directory: Path, rows: Rows) -> None:
    result = result_of(run_directory / "evaluate")
    assert [each["label"] for each in result["checkpoints"]] == list(CHECKPOINTS)
    for each in result["checkpoints"]:
        trials = list(read(run_directory / "evaluate" / each["file"]))
        assert [trial.problem_id for trial in trials] == [problem.id for problem in rows.problems]
        assert {trial.suite_digest for trial in trials} == {result["suite"]["digest"]}
        right = sum(trial.outcome == "correct" for trial in trials)
        assert each["accuracy"]["value"] == right / len(trials)
        assert each["accuracy"]["clusters"] == 60
        assert sum(each["outcomes"].values()) == len(trials) == sum(kind["n"] for kind in each["kinds"].values())
    assert not result["partial"]
    assert result["problems"] == {"used": 240, "original": 240}


def test_pairs_are_compared_for_a_reason(run_directory: Path) -> None:
    result = result_of(run_directory / "evaluate")
    assert {(each["a"], each["b"]): each["roles"] for each in result["comparisons"]} == {
        ("update", "tune"): ["previous", "first"],
        ("update", "update@random"): ["control"],
        ("update@random", "tune"): ["previous", "first"],
    }


def test_provenance_says_how(run_directory: Path) -> None:
    provenance = result_of(run_directory / "evaluate")["provenance"]
    assert provenance["quote"].startswith("easy-vqa:test · 240/240 · greedy · at most 64 tokens · exact_match v2")
    assert provenance["first_prompt"][-1]["role"] == "user"
    assert set(provenance["checkpoints"]) == set(CHECKPOINTS)
    assert {"python", "numpy"} <= set(provenance["packages"])


def test_a_limited_run_is_partial(context: StageContext) -> None:
    found = EvaluateStage(limit=30, data="test").run(context)
    result = result_of(context.directory)
    assert result["partial"] and result["problems"] == {"used": 30, "original": 240}
    assert "30/240 partial" in result["provenance"]["quote"]
    assert found.numbers["partial"] == "30 of 240 problems"


class Recorder:
    """Passes on to an engine what it is asked, and notes it; stops the stage after some requests."""

    def __init__(self, inner: Any, asked: list[str], context: StageContext, stop_after: int) -> None:
        self.inner, self.asked, self.context, self.stop_after = inner, asked, context, stop_after

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        self.asked += [request.id for request in requests]
        self.context.stop.requested = len(self.asked) >= self.stop_after
        yield from self.inner.generate(requests)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, context: StageContext) -> list[str]:
    """What engines are asked, in order. A stop is requested whenever 100 requests or more have been made."""
    asked: list[str] = []
    engine = type(context).engine
    monkeypatch.setattr(type(context), "engine", lambda self, path: Recorder(engine(self, path), asked, context, 100))
    return asked


def test_an_interrupted_evaluation_goes_on(context: StageContext, run_directory: Path, asked: list[str]) -> None:
    settings = EvaluateStage(chunk=40)
    with pytest.raises(Interrupted):
        settings.run(context)
    first = len(asked)
    assert first == 120
    while True:
        context.stop.requested = False
        try:
            settings.run(context)
        except Interrupted:
            continue
        break
    assert len(asked) == 3 * 240  # Nothing twice, nothing left out.
    for name in CHECKPOINTS:
        again = (context.directory / name / "trials.jsonl").read_bytes()
        assert again == (run_directory / "evaluate" / name / "trials.jsonl").read_bytes()
    assert result_of(context.directory) == result_of(run_directory / "evaluate")


def test_other_weights_are_asked_again(
    context: StageContext,
    copy: Path,
    rows: Rows,
    context_after: Callable[..., StageContext],
    finish_stage: Callable[..., None],
) -> None:
    EvaluateStage().run(context)
    before = (context.directory / "update" / "trials.jsonl").read_bytes()
    (copy / "update" / "checkpoint" / "skill.json").write_text('{"colour": 1.0, "shape": 1.0, "yes/no": 1.0}')
    finish_stage(copy / "update", "update", 1.0, StageResult(), [copy / "tune", copy / "filter"])
    EvaluateStage().run(context_after("evaluate", copy, rows, [copy / name for name in STAGES]))
    assert (context.directory / "update" / "trials.jsonl").read_bytes() != before
    assert result_of(context.directory)["checkpoints"][1]["accuracy"]["value"] > 0.9


def test_without_a_checkpoint_there_is_nothing_to_evaluate(
    copy: Path, rows: Rows, context_after: Callable[..., StageContext]
) -> None:
    with pytest.raises(RunError, match="no stage before it made a checkpoint"):
        EvaluateStage().run(context_after("evaluate", copy, rows, [copy / "generate"]))


def test_without_problems_there_is_nothing_to_ask(context: StageContext) -> None:
    context.recipe.rows = Rows()  # type: ignore[attr-defined]
    with pytest.raises(RunError, match=r"data\.test has no problems"):
        EvaluateStage().run(context)


def test_the_plan_finds_what_is_wrong() -> None:
    recipe = Recipe.model_construct(data={})
    lines = list(EvaluateStage(name="evaluate", reward="exact_mach").check(recipe))
    assert lines == ["evaluate.reward: no reward is called `exact_mach`; did you mean `exact_match`?"]
    assert list(EvaluateStage().check(recipe)) == []


def test_the_previous_checkpoint_is_an_ancestor(copy: Path) -> None:
    """Two rounds and an arm: an arm's second round follows its own first, never its sibling."""
    template = Manifest.read(copy / "tune")
    assert template is not None
    chain = {
        "tune": (),
        "filter": ("tune",),
        "update": ("tune", "filter"),
        "tune.2": ("update",),
        "update.2": ("tune.2",),
        "filter@random": ("tune", "filter"),
        "update@random": ("tune", "filter@random"),
        "tune.2@random": ("update@random",),
        "update.2@random": ("tune.2@random",),
    }
    handles = {
        name: StageHandle(
            name,
            name.split("@")[0].split(".")[0],
            copy / name,
            template.model_copy(update={"stage": name, "inputs": dict.fromkeys(inputs, "x")}),
            0,
        )
        for name, inputs in chain.items()
    }
    upstream = list(handles.values())
    previous = {name: found.name for name in chain if (found := previous_of(handles[name], upstream)) is not None}
    assert previous["update"] == "tune"
    assert previous["tune.2"] == "update"
    assert previous["update@random"] == "tune"
    assert previous["tune.2@random"] == "update@random"
    assert previous["update.2@random"] == "tune.2@random"
    assert "tune" not in previous
    # Begun as the recipe's model, or as the last update: never as the tuned one.
    from_recipe = {"settings": {"start": "recipe"}}
    for name, expected in (("update", None), ("update.2", "update")):
        manifest = handles[name].manifest.model_copy(update={"source": from_recipe})
        found = previous_of(replace(handles[name], manifest=manifest), upstream)
        assert (found and found.name) == expected
