"""What `trivium eval` does: a recipe of evaluations made from its arguments, looked at, run and read back."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import TypeAdapter

from engines.settings import EngineSettings, what_matters
from pipelines.boards import check_boards
from pipelines.checkpoints import engine_kind, root_of
from pipelines.errors import RecipeError, RunError
from pipelines.evaluation import Stored, check_same_problems, stored
from pipelines.plan import legs, plan
from pipelines.recipe import Recipe, validate
from pipelines.remote.copies import fetch_run
from pipelines.runner import RECIPE_FILE, Say
from pipelines.source import Source, assign, parse_assignment
from pipelines.stage import StageSettings

if TYPE_CHECKING:
    from rich.table import Table

    from eval.suite_file import SuiteFile
    from pipelines.stages.evaluate import EvaluateStage
    from tasks.problem import Problem

_LONGEST = 32
REQUIREMENTS = ("better", "not-worse")
_COMMAND = "trivium eval"
_OPTIONS = {
    "kind": "what is run is an evaluation; leave it out",
    "name": "the run's name is an option: --name",
    "suite": "what is measured is an option: --suite; suite.KEY=VALUE changes a key of it",
}
"""Keys of a stage that are given otherwise here."""


def recipe_of(
    checkpoint: str,
    suites: str,
    ks: str,
    n: int | None,
    against: str | None,
    name: str | None,
    overrides: Sequence[str],
    runs: Path,
) -> tuple[Recipe, list[str]]:
    """One evaluation for each suite, then a report; and the names of these stages. Suites that the run has already,
    with these weights, stay in it.

    Raises `RecipeError` with a line for each thing that is wrong, `RunError` where the run is of other checkpoints.
    """
    chosen = list(dict.fromkeys(each.strip() for each in suites.split(",") if each.strip()))
    if not chosen:
        raise RecipeError("name what to measure: --suite NAME[,NAME]; `trivium eval suites` lists them")
    if "," in checkpoint and not Path(checkpoint).exists():
        one, other = checkpoint.split(",")[:2]
        raise RecipeError(
            f"{checkpoint}: one checkpoint is evaluated at a time; --against compares it with another: "
            f"{_COMMAND} {other} --against {one}"
        )
    base = None if against is None or _run_of(against, runs) else against
    label, base_label = _label(checkpoint), _label(base) if base else None
    if base_label == label:
        base_label = f"{label}-base"
    # The base first: what is compared is the later one, with the first.
    asked = ({base_label: _place(base)} if base and base_label else {}) | {label: _place(checkpoint)}
    data: dict[str, Any] = {"name": name or f"eval-{label}", "engine": {"kind": _engine(asked)}}
    stage: dict[str, Any] = {"checkpoints": asked, "k": _ks(ks)}
    if n is not None:
        stage["n"] = n
    if against is not None and base is None:
        stage["against"] = str(_run_of(against, runs))
    of_suites: dict[str, Any] = {}
    for keys, value in map(parse_assignment, overrides):
        if keys[0] in ("engine", "seed"):
            assign(data, keys, value, f"`{'.'.join(keys)}`")
        elif keys[0] == "suite" and len(keys) > 1:
            of_suites[".".join(keys[1:])] = value
        elif keys[0] in _OPTIONS:
            raise RecipeError(f"`{keys[0]}={value}`: {_OPTIONS[keys[0]]}")
        else:
            assign(stage, keys, value, f"`{'.'.join(keys)}`")
    stages = [{"kind": "evaluate", "suite": each, "overrides": of_suites, **stage} for each in chosen]
    for each in stages:
        each["name"] = _stage_name(each["suite"], of_suites)
        if same := [other["suite"] for other in stages if other is not each and other.get("name") == each["name"]]:
            raise RecipeError(
                f"--suite {same[0]},{each['suite']}: both are called {each['name']}; give one another file name, "
                "or ask each in a run of its own (--name)"
            )
    recipe = _recipe({**data, "stages": [*stages, {"kind": "report"}]})
    names = [str(each["name"]) for each in stages]
    fetch_run(runs / recipe.name)
    _keep_whole(recipe, runs / recipe.name)
    return _with_earlier(recipe, runs / recipe.name, asked), names


def plan_lines(recipe: Recipe, root: Path, say: Say) -> Table:
    """Looks at data, gold answers, and the room for prompts and answers; says how much would be asked.

    Raises `RecipeError` for what would end the evaluation before anything is written.
    """
    from pipelines.tables import plan_table

    parts = legs(recipe, root)
    steps = plan(parts)
    for step in steps:
        if step.reason is not None and step.link.kind == "evaluate":
            for line in _look(step.link.settings):
                say(line)
    return plan_table(steps, {step.leg.label + step.link.name for step in steps})


def check_asked(recipe: Recipe) -> None:
    """Before anything is written: raises `CompareError` where a run that is compared with was asked other problems,
    `RunError` where a recurrent reasoner can read none."""
    for settings in recipe.stages:
        stage: EvaluateStage = settings  # type: ignore[assignment]
        # Problems are loaded twice only where there is something to refuse.
        if stage.kind == "evaluate" and not stage.bridged and (stage.against or recipe.engine.kind == "latent"):
            name, file = stage.suite_file()
            problems = file.rows().problems[: stage.limit]
            check_same_problems([problem.id for problem in problems], stage.others(name))
            check_boards(name, stage.checkpoints, problems)


def results_of(recipe: Recipe, root: Path) -> list[Stored]:
    """The finished evaluations of this recipe, in its order."""
    found = {each.name: each for each in stored(root)}
    return [found[str(stage.name)] for stage in recipe.stages if stage.name in found]


def unmet(results: Sequence[Stored], asked: Collection[str], require: str | None) -> list[str]:
    """The suites, of the stages `asked`, on which the checkpoint is not `better`, or is worse, than its base; both also
    where neither solves any problem or too many answers could not be graded."""
    from eval.compare import NOTHING_SOLVED

    failed = []
    for each in (each for each in results if each.name in asked):
        last = each.result["checkpoints"][-1]["label"]
        pair = next((pair for pair in each.result["comparisons"] if pair["a"] == last), None)
        estimate = pair["difference"]["estimate"] if pair else {"low": None, "high": None}
        empty = pair is not None and not pair.get("solved", True)
        better = estimate["low"] is not None and estimate["low"] > 0
        worse = estimate["high"] is None or estimate["high"] < 0
        if (require == "better" and not better) or (require == "not-worse" and (worse or empty)):
            why = NOTHING_SOLVED if empty else estimate.get("reason")
            failed.append(str(each.result["suite"]["name"]) + (f" ({why})" if why else ""))
    return failed


def check_requirement(require: str | None, against: str | None) -> None:
    """Raises `RunError` where there is no such requirement, or nothing to compare with."""
    if require is not None and require not in REQUIREMENTS:
        raise RunError(f"--require {require}: it is one of {', '.join(REQUIREMENTS)}")
    if require is not None and against is None:
        raise RunError("--require compares: name what with, --against BASE")


def suite_text(reference: str, overrides: Mapping[str, Any], count: int, checkpoint: str | None = None) -> str:
    """A suite's settings as YAML, then its first problems: turns, or the text that they become for a checkpoint.

    Raises `EngineError` where the checkpoint has no processor or no chat template.
    """
    from eval.registry import find, label, with_overrides
    from pipelines.prompts import prompts_of

    name, file = with_overrides(label(reference), find(reference), overrides)
    problems = _first(file, count)
    suite = file.suite(name, {}, len(problems))
    parts = [yaml.safe_dump({name: _shown(file)}, sort_keys=False, allow_unicode=True).rstrip()]
    asked = [(suite.messages(problem), problem.image is not None) for problem in problems]
    if checkpoint is None:
        texts = ["\n".join(f"{turn['role']}: {turn['content']}" for turn in messages) for messages, _ in asked]
    else:
        texts = prompts_of(checkpoint, asked)
    for problem, text in zip(problems, texts, strict=True):
        image = f" [image {problem.image}]" if problem.image else ""
        parts.append(f"--- {problem.id}{image}\n{text}\ngold: {problem.answer}")
    return "\n".join(parts)


def _shown(file: SuiteFile) -> dict[str, Any]:
    return file.model_dump(mode="json", exclude_defaults=True)


def _first(file: SuiteFile, count: int) -> Sequence[Any]:
    from tasks.registry import load, makes_problems

    # Hard puzzles take a second each: no more are made than are shown.
    size = {"size": count} if makes_problems(file.data["task"]) else {}
    return load(**{**file.located(file.data), **size}).problems[:count]


def _look(settings: StageSettings) -> Iterator[str]:
    from eval.grading import refused_golds, untold
    from rewards.registry import load
    from tasks.problem import TaskError

    stage: EvaluateStage = settings  # type: ignore[assignment]
    if stage.bridged:
        yield f"{stage.suite}: what it asks is known to lm-evaluation-harness, and looked at when it runs"
        return
    name, file = stage.suite_file()
    rows = file.rows()
    problems = rows.problems[: stage.limit]
    refused = refused_golds(problems, load(file.reference(file.reward)), every=True)
    if refused:
        gold = {problem.id: problem.answer for problem in problems}
        shown = ", ".join(f"{gold[problem]!r} of problem {problem} ({why})" for problem, why in refused[:3])
        raise TaskError(f"{name}: {len(refused)} gold answers are not accepted by {file.reward}: {shown}")
    check_same_problems([problem.id for problem in problems], stage.others(name))
    check_boards(name, stage.checkpoints, problems)
    for label, path in stage.checkpoints.items():
        _check_room(name, file, label, path, problems)
    asked = len(problems) * stage.samples * len(stage.checkpoints)
    lost = "".join(f", {number} left out: {reason}" for reason, number in rows.left_out.items())
    times = f"{stage.samples} answers × {len(stage.checkpoints)} checkpoints"
    cells = 0 if stage.stress is None else len(stage.stress.grid().cells()) - 1
    harder = f", and {len(problems) * cells * len(stage.checkpoints)} under stress" if cells else ""
    yield f"{name}: {len(problems)} problems × {times} = {asked}{harder}{lost}"
    if line := untold(problems):
        yield f"{name}: {line}"


def _check_room(name: str, file: SuiteFile, label: str, path: str, problems: Sequence[Problem]) -> None:
    """Raises `TaskError` where a prompt leaves a local checkpoint no room for a whole answer. Of problems with images,
    whose prompts grow with the image, the engine says so."""
    from engines.checkpoint import load_processor
    from engines.rendering import Renderer
    from tasks.problem import TaskError

    blind = [problem for problem in problems if problem.image is None]
    if engine_kind(path) == "latent" or not Path(path).is_dir() or not blind:
        return
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(root_of(path))
    except (OSError, ValueError):
        return  # a class with code of its own, which a plan does not run
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    renderer = Renderer(load_processor(path), config)
    suite = file.suite(name, {}, len(problems))
    # The longest in characters: the longest in tokens is among them, but for odd texts.
    longest = sorted(blind, key=lambda problem: -len(problem.question))[:_LONGEST]
    tokens = {problem.id: len(renderer.prompt_ids(suite.messages(problem), False)) for problem in longest}
    problem, most = max(tokens.items(), key=lambda each: each[1])
    if context is not None and most + file.decoding.max_new_tokens > context:
        raise TaskError(
            f"{name}: the prompt of problem {problem} takes {most} tokens, which with max_new_tokens "
            f"{file.decoding.max_new_tokens} is more than the context of {label}, {context}; lower "
            "suite.decoding.max_new_tokens"
        )


def _recipe(data: dict[str, Any]) -> Recipe:
    return validate(Source(data, _COMMAND))


def _keep_whole(recipe: Recipe, root: Path) -> None:
    """Raises `RunError` where a part of a suite's problems would take the place of a result on all of them, or another
    suite that of one of the same name."""
    results = {each.name: each for each in stored(root)}
    for stage in recipe.stages:
        limit, found = getattr(stage, "limit", None), results.get(str(stage.name))
        if found is None:
            continue
        if limit and not found.limited and limit < found.result["problems"]["used"]:
            raise RunError(
                f"{root / str(stage.name)}: holds the result on all {found.result['problems']['used']} problems, which "
                f"limit={limit} would replace; give the limited one a --name of its own"
            )
        there, suite = found.reference, str(getattr(stage, "suite", None))
        if there is not None and _place(there) != _place(suite):
            raise RunError(
                f"{root / str(stage.name)}: holds the result on the suite {there}, which {suite} would replace; give "
                "it another file name, or this run a --name of its own"
            )


def _with_earlier(recipe: Recipe, root: Path, asked: Mapping[str, str]) -> Recipe:
    """The recipe with those evaluations of an earlier command that are still up to date, in front."""
    path = root / RECIPE_FILE
    if not path.is_file():
        return recipe
    earlier = yaml.safe_load(path.read_text(encoding="utf-8"))
    before = {label: place for stage in earlier.get("stages", ()) for label, place in _checkpoints_of(stage).items()}
    for label, place in asked.items():
        if Path(before.get(label, place)).resolve() != Path(place).resolve():
            raise RunError(
                f"{root}: {label} is {before[label]} there, and not {place}; give this run a --name of its own"
            )
    names = {stage.name for stage in recipe.stages}
    same = _engine_that_matters(earlier) == what_matters(recipe.engine) and earlier.get("seed") == recipe.seed
    kept = [
        stage
        for stage in earlier.get("stages", ())
        if same and stage["kind"] == "evaluate" and stage["name"] not in names and stage.get("checkpoints") == asked
    ]
    if not kept:
        return recipe
    values = recipe.dump()
    both = _recipe({**values, "stages": [*kept, *values["stages"]]})
    due = {step.link.name for step in plan(legs(both, root)) if step.reason is not None}
    kept = [stage for stage in kept if stage["name"] not in due]
    return _recipe({**values, "stages": [*kept, *values["stages"]]})


def _engine_that_matters(earlier: Mapping[str, Any]) -> dict[str, Any]:
    return what_matters(TypeAdapter(EngineSettings).validate_python(earlier.get("engine")))


def _checkpoints_of(stage: Mapping[str, Any]) -> Mapping[str, str]:
    return stage.get("checkpoints") or {}


def _engine(asked: Mapping[str, str]) -> str:
    kinds = {label: engine_kind(path) for label, path in asked.items()}
    if len(set(kinds.values())) > 1:
        both = " and ".join(f"{label} is for engine {kind}" for label, kind in kinds.items())
        raise RecipeError(f"{both}: evaluate each by itself, then give the other's run: --against RUN allow=[engine]")
    return next(iter(kinds.values()))


def _ks(text: str) -> list[int]:
    try:
        return [int(each) for each in text.split(",")]
    except ValueError:
        raise RecipeError(f"--k {text}: give numbers, such as --k 1,8") from None


def _run_of(name: str, runs: Path) -> Path | None:
    """The directory of a run of that name, or at that place."""
    return next((each for each in (runs / name, Path(name)) if (each / RECIPE_FILE).is_file()), None)


def _place(path: str) -> str:
    """One spelling for each local checkpoint, so that a second command knows it again."""
    return str(Path(path).resolve()) if Path(path).exists() else path


def _label(path: str) -> str:
    """A name for a checkpoint: the end of its path, with the run and stage that made it."""
    place = Path(path)
    parts = place.resolve().parts if place.exists() else place.parts
    wanted = parts[-3:-1] if parts[-1] == "checkpoint" else parts[-1:]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(wanted)).strip("-") or "checkpoint"


def _stage_name(suite: str, overrides: Mapping[str, Any]) -> str:
    from eval.registry import find, label, with_overrides
    from eval.suite_file import SuiteError

    try:
        name = with_overrides(label(suite), find(suite), overrides)[0]
    except SuiteError:
        name = label(suite)  # The check of the stage says what is wrong.
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")
