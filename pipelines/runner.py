"""The runner: brings every stage of a run up to date, in order, so that any interruption can be resumed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from engines.settings import missing_engine
from pipelines import machine
from pipelines.aside import Aside, clear, put_aside
from pipelines.context import StageContext
from pipelines.errors import Interrupted, RunError, explain
from pipelines.files import remove, sweep, write_json, write_text
from pipelines.heartbeat import LIVE_FILE, Heartbeat
from pipelines.launching.checks import check_machine
from pipelines.launching.driver import Launched
from pipelines.launching.joined import Lead
from pipelines.launching.settings import launch_settings
from pipelines.lock import locked
from pipelines.manifest import ATTEMPT_FILE, MANIFEST_FILE, Manifest, output_files
from pipelines.metrics import METRICS_FILE, Metrics
from pipelines.plan import Selection, Step, check_workers, legs, plan, read_by
from pipelines.progress import Progress
from pipelines.recipe import Recipe
from pipelines.remote.copies import mirror_of
from pipelines.remote.mirror import Mirror
from pipelines.shards import KEY_FILE
from pipelines.stage import StageHandle, StageResult
from pipelines.stop import Stop, polite_signals

RECIPE_FILE = "recipe.yaml"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What all steps of one call of `run` have in common."""

    stop: Stop
    say: Say
    heart: Heartbeat
    lead: Lead | None
    mirror: Mirror | None


def run(
    recipe: Recipe, root: Path, selection: Selection, say: Say, command: str | None = None, lead: Lead | None = None
) -> None:
    """Runs what is not up to date. `say` gets a line for each stage.

    `command` goes on where this one ended; `lead`: to the other processes of a launcher.

    Raises `RecipeError` before anything is written, `RunError` for what the user can mend, `Interrupted` after Ctrl-C.
    """
    stop, mirror = Stop(), mirror_of(root)

    def give_up() -> None:
        stop.requested = True

    with ExitStack() as held:
        if mirror is not None:
            _make(root)
            held.enter_context(locked(root))
            held.enter_context(mirror.held(say, give_up))
            mirror.pull()
        if left := put_aside(root):
            with locked(root) if mirror is None else nullcontext():
                for aside in left:
                    _given_back(aside)
        parts = legs(recipe, root)
        selected = selection.of(parts)
        steps = {step.leg.label + step.link.name: step for step in plan(parts)}
        due = {name: step for name, step in steps.items() if step.reason and name in selected}
        missing = missing_engine(recipe.engine)
        if missing and any("engine" in step.link.settings.uses for step in due.values()):
            raise RunError(f"engine.kind: {missing}")
        check_workers(recipe, due.values())
        check_machine(due.values())
        if mirror is None:
            _make(root)
            held.enter_context(locked(root))
        around = _Surroundings(stop, say, Heartbeat(root / LIVE_FILE, list(steps), list(due), command), lead, mirror)
        held.enter_context(polite_signals(stop))
        held.enter_context(around.heart.beating())
        sweep(root)
        _write_once(root / RECIPE_FILE, recipe.to_yaml())
        made: dict[str, Step] = {}
        for leg in parts:
            leg.directory.mkdir(exist_ok=True)
            for step in leg.steps(made):
                _bring_up_to_date(step, made, leg.label + step.link.name in selected, around)


def _make(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{root}: cannot be made ({error.strerror}); choose another place with --runs DIR") from None


def _bring_up_to_date(step: Step, made: dict[str, Step], selected: bool, around: _Surroundings) -> None:
    name = step.leg.label + step.link.name
    reason = step.reason
    if selected and reason is None:
        around.say(f"{name}: up to date")
    elif selected:
        for above in read_by(step.leg, step.link, made):
            if above.reason is not None:
                other = above.leg.label + above.link.name
                raise RunError(f"{name} reads {other}, which is not up to date ({above.reason}); run that first")
        if around.stop.requested:
            raise Interrupted(f"before {name}")
        around.say(f"{name}: {reason}")
        if around.mirror is not None:
            around.mirror.begin(step.directory)
        around.heart.enter(name)
        try:
            manifest = _run_step(step, made, around)
        except Exception as error:
            message = explain(error)
            if message is None:
                raise
            raise RunError(f"{name}: {message}") from error
        if around.mirror is not None:
            around.mirror.push(step.directory)
        for warning in manifest.warnings:
            around.say(f"{name}: warning: {warning}")
        around.say(f"{name}: done, {_summary(manifest)}")
        around.heart.leave(name)
        step = Step(step.leg, step.link, step.source, None)
    made[name] = step


def _run_step(step: Step, made: Mapping[str, Step], around: _Surroundings) -> Manifest:
    """Runs one stage, whose upstream is finished, and writes its manifest."""
    link, directory = step.link, step.directory
    aside = Aside(directory)
    launch = _launch(step, around.lead)
    context = context_of(step, made, around.stop, launch=launch, heartbeat=around.heart, on_work=aside.drop)
    metrics = context.metrics
    fingerprints = {name: context.handle(kind).manifest.fingerprint for kind, name in link.upstream.items()}
    attempts = _begin(aside, step, fingerprints, metrics)
    if around.mirror is not None:
        around.mirror.begun(directory)

    spent = machine.Spent()
    try:
        result = link.settings.run(context)
    except BaseException:
        if _given_back(aside) and around.mirror is not None:
            around.mirror.push(directory)
        raise
    finally:
        context.close_engine()
    aside.drop()
    if link.settings.counts_rows:
        _check_counts(link.name, result)
    _remove_shards(directory, keep=context.opened)
    sweep(directory)
    metrics.settle(link.name)
    manifest = Manifest(
        stage=link.name,
        kind=link.kind,
        digest=step.digest,
        source=dict(step.source),
        inputs=fingerprints,
        seed=context.seed,
        **spent.entries(),
        attempts=attempts,
        rows_in=result.rows_in,
        rows_out=result.rows_out,
        dropped=dict(result.dropped),
        numbers=dict(result.numbers),
        warnings=list(result.warnings),
        files=output_files(directory),
    )
    manifest.write(directory)
    return manifest


def _launch(step: Step, lead: Lead | None) -> Callable[[StageContext, Progress], None] | None:
    """What trains a step in several processes; None where one will do."""
    settings, name = launch_settings(step.leg.recipe, step.link.settings), step.leg.label + step.link.name
    if lead is not None:
        return partial(lead.train, settings=settings, root=step.leg.root, name=name)
    return Launched(settings, step.leg.root, name) if settings.world > 1 else None


def context_of(step: Step, made: Mapping[str, Step], stop: Stop, **further: Any) -> StageContext:
    """The surroundings of a stage whose upstream is finished. Raises `RunError` where that is not so."""
    link = step.link
    above = read_by(step.leg, link, made)
    original = None
    if link.original is not None and made[step.leg.label + link.original].reason is None:
        original = made[step.leg.label + link.original].directory
    return StageContext(
        recipe=step.leg.recipe,
        name=link.name,
        directory=step.directory,
        inputs={kind: each.directory for kind, each in zip(link.upstream, above, strict=True)},
        upstream=[handle_of(each) for each in above],
        seed=int(step.source["seed"]),
        stop=stop,
        metrics=Metrics(step.leg.directory / METRICS_FILE),
        sections=step.source["sections"],
        original=original,
        **further,
    )


def handle_of(step: Step) -> StageHandle:
    """A finished step as later stages see it. Raises `RunError` where it is not finished."""
    manifest = Manifest.read(step.directory)
    if manifest is None:
        raise RunError(f"{step.directory}: is not finished")
    name = step.leg.label + step.link.name
    return StageHandle(name, step.link.kind, step.directory, manifest, step.leg.recipe.seed)


def _begin(aside: Aside, step: Step, inputs: Mapping[str, Any], metrics: Metrics) -> int:
    """Makes the directory fit to work in; returns the number of this attempt.

    An attempt with the same settings and inputs goes on with whatever is there. Otherwise finished outputs are put
    aside and unfinished ones go, but for shards, which know by their own key whether they still hold. The order of
    removal keeps every state in between recognisable: never a manifest, nor a matching attempt, beside files that are
    half removed.
    """
    directory, stage = aside.directory, step.link.name
    attempt = {"digest": step.digest, "inputs": inputs}
    directory.mkdir(exist_ok=True)
    path = directory / ATTEMPT_FILE
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    number = 1
    if {key: before.get(key) for key in attempt} == attempt:
        remove(directory / MANIFEST_FILE)
        number = int(before["attempts"]) + 1
    else:
        if (directory / MANIFEST_FILE).exists():
            aside.put(metrics.of(stage))
        else:
            clear(directory)
        metrics.replace(stage)
    write_json(path, {**attempt, "source": step.source, "attempts": number})
    return number


def _given_back(aside: Aside) -> bool:
    """Puts finished outputs back in place of an attempt that got nothing done; False where there are none aside."""
    if (records := aside.records()) is None:
        return False
    Metrics(aside.directory.parent / METRICS_FILE).replace(aside.directory.name, records)
    aside.put_back()
    return True


def _remove_shards(directory: Path, keep: list[Path]) -> None:
    for file in list(directory.rglob(KEY_FILE)):
        if file.parent not in keep:
            remove(file.parent)


def _check_counts(name: str, result: StageResult) -> None:
    if (
        result.rows_in is None
        or result.rows_out is None
        or result.rows_in != result.rows_out + sum(result.dropped.values())
    ):
        raise AssertionError(
            f"{name} counted {result.rows_in} rows in, {result.rows_out} out and {sum(result.dropped.values())} dropped"
        )


def _summary(manifest: Manifest) -> str:
    rows = f"{manifest.rows_in} rows in, {manifest.rows_out} out, " if manifest.rows_in is not None else ""
    return f"{rows}{manifest.seconds:.1f} s"


def _write_once(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
