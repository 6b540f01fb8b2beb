"""The command `trivium`. Commands import what they need when they run, so that help is quick and torch-free."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli_eval import eval_app
from pipelines.cli_rewards import rewards_app
from pipelines.terminal import RunName, Runs, command_line, echo_columns, one_line, show, task_options

if TYPE_CHECKING:
    from pipelines.launching.ranks import Ranks
    from pipelines.plan import Selection
    from pipelines.recipe import Recipe

app = typer.Typer(
    help="Post-trains language and vision-language models to reason, on data the models make and check themselves.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
runs_app = typer.Typer(help="Look at runs.", no_args_is_help=True)
launch_app = typer.Typer(help="Jobs for clusters.", no_args_is_help=True)
tasks_app = typer.Typer(help="Look at tasks and their problems.", no_args_is_help=True)
app.add_typer(launch_app, name="launch")
app.add_typer(runs_app, name="runs")
app.add_typer(rewards_app, name="rewards")
app.add_typer(tasks_app, name="tasks")
app.add_typer(eval_app, name="eval")


@app.callback(invoke_without_command=True)
def main_options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"trivium {version_of('trivium-reasoning')}")
        raise typer.Exit()


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as stages.tune.epochs=3 engine.kind=vllm")
    ] = None,
    only: Annotated[str | None, typer.Option(metavar="STAGE", help="Run this stage alone.")] = None,
    start: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Leave out what comes before.")] = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Leave out what comes after.")] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Check everything, say what would run and why, and stop.")
    ] = False,
    on: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="With --plan: reckon the cost for h100, 8xa100, cpu, …")
    ] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Run a recipe, or go on with it. Stages that are up to date are skipped."""
    with one_line():
        from pipelines.errors import RecipeError
        from pipelines.launching.ranks import Ranks
        from pipelines.plan import Selection
        from pipelines.recipe import load_recipe
        from pipelines.remote.copies import fetch_run

        if on is not None and not plan:
            raise RecipeError(f"--on {on}: says what --plan reckons the cost for; give --plan too, or leave --on out")
        selection, ranks = Selection(only, start, until), Ranks.of(os.environ)
        if ranks is not None and ranks.rank > 0:
            raise typer.Exit(0 if plan else _follow(ranks))
        if plan:
            resolved = load_recipe(recipe, overrides or [])
            fetch_run(runs / resolved.name)
            _plan(resolved, runs / resolved.name, selection, on)
        else:
            _run(recipe, overrides or [], runs, selection, ranks)


@launch_app.command("slurm")
def launch_slurm(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as launch.processes=4 launch.nodes=2")
    ] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Write a job for Slurm that runs a recipe in the processes of its `launch:` block."""
    with one_line():
        from pipelines.launching.slurm import write_job
        from pipelines.recipe import load_recipe

        job = write_job(load_recipe(recipe, overrides or []), recipe, overrides or [], runs)
        typer.echo(f"{job}\nLook through it, then: sbatch {job}")


@runs_app.command("list")
def runs_list(runs: Runs = Path("runs")) -> None:
    """All runs."""
    with one_line():
        from pipelines.remote.copies import shown
        from pipelines.store import list_runs
        from pipelines.tables import runs_table

        found = list_runs(runs)
        if not found:
            typer.echo(f"no runs in {shown(runs)}")
            return
        show(runs_table(found))


@runs_app.command("show")
def runs_show(
    run: RunName,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show what a run at work does, again and again, until it ends.")
    ] = False,
    runs: Runs = Path("runs"),
) -> None:
    """What a run at work does; rows, times and numbers of each finished stage."""
    with one_line():
        from pipelines.live import read_live
        from pipelines.live_text import live_lines
        from pipelines.live_text import watch as watch_it
        from pipelines.remote.copies import kept_fresh
        from pipelines.store import find_run
        from pipelines.tables import number_table, run_table

        found = find_run(run, runs)
        if watch:
            with kept_fresh(found.directory):
                watch_it(found.directory, typer.echo)
            found = find_run(run, runs)
        else:
            for line in live_lines(read_live(found.directory)):
                typer.echo(line)
        show(run_table(found), number_table(found))


@runs_app.command("diff")
def runs_diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A run.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    all_: Annotated[bool, typer.Option("--all", help="Name every problem that flipped, not the first 20.")] = False,
    allow: Annotated[
        str, typer.Option(metavar="NAME[,NAME]", help="Settings of a suite that may differ, such as engine.")
    ] = "",
    runs: Runs = Path("runs"),
) -> None:
    """The problems that flipped between two runs, then rows, numbers and settings that differ."""
    with one_line():
        from pipelines.eval_tables import flip_table
        from pipelines.flips import flips
        from pipelines.store import differences, find_run
        from pipelines.tables import difference_table

        left, right = find_run(a, runs), find_run(b, runs)
        allowed = [each.strip() for each in allow.split(",") if each.strip()]
        found = list(flips(left.directory, right.directory, allowed))
        if found:
            show(flip_table(found, all_))
        show(difference_table(differences(left, right), a, b))


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="LLaDA's weights, a causal Llama or Qwen, or a .gguf file.")
    ],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The directory to write.")],
    sha256: Annotated[str | None, typer.Option(help="What the .gguf file has to have.")] = None,
) -> None:
    """Write a checkpoint of a stock class: a masked-diffusion model, or what a GGUF file has packed."""
    with one_line():
        from pipelines.errors import RunError
        from pipelines.files import whole

        packed = source.suffix == ".gguf"
        if target.exists():
            raise RunError(f"{target}: exists already; name another directory")
        if sha256 is not None and not packed:
            raise RunError(f"--sha256 is of a .gguf file, which {source} is not")
        if packed and not source.is_file():
            raise RunError(f"{source}: no such file")
        with whole(target) as path:
            if packed:
                from selfrefine.gguf import unpack

                typer.echo(unpack(source, path, sha256))
            else:
                from selfrefine.diffusion.conversion import convert as to_masked

                typer.echo(to_masked(source, path))


@app.command()
def report(run: RunName, runs: Runs = Path("runs")) -> None:
    """Write report.html anew from whatever the run has finished."""
    with one_line():
        from pipelines.remote.copies import publish_run
        from pipelines.report import write_report
        from pipelines.store import find_run

        found = find_run(run, runs).directory
        typer.echo(write_report(found))
        publish_run(found)


@app.command()
def serve(
    run: RunName,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 0,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    expose: Annotated[bool, typer.Option("--expose", help="Allow an address that other machines reach.")] = False,
    runs: Runs = Path("runs"),
) -> None:
    """Show a run as a web page while it runs. The page only reads."""
    with one_line():
        from pipelines.remote.copies import kept_fresh
        from pipelines.serving.server import RunServer
        from pipelines.store import find_run

        found = find_run(run, runs).directory
        with kept_fresh(found), RunServer(found, host, port, expose) as server:
            if not server.local:
                typer.echo(f"warning: whoever reaches {host} can read this run; no password is asked", err=True)
            typer.echo(f"{server.url} shows {run}; Ctrl-C ends it")
            with suppress(KeyboardInterrupt):
                server.serve_forever()


@app.command()
def doctor(
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False,
) -> None:
    """Check the installation: versions against the tested windows, and known faults."""
    from pipelines.doctor import doctor as examine

    raise typer.Exit(examine(repair))


@tasks_app.command("list")
def tasks_list() -> None:
    """All tasks."""
    from tasks.registry import entries

    echo_columns([(each.name, each.summary) for each in entries()])


@tasks_app.command("show")
def tasks_show(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Keys of the task, such as folder=photos")
    ] = None,
    split: Annotated[str, typer.Option(metavar="SPLIT", help="Which part.")] = "train",
    count: Annotated[int, typer.Option("-n", min=1, help="How many problems.")] = 5,
) -> None:
    """The first problems of a task."""
    with one_line():
        from pipelines.tables import plain_table
        from tasks.registry import check_whole, entry, load, makes_problems

        about, options = entry(name), task_options(overrides or [])
        skip, take = options.pop("skip", 0), options.pop("take", None)
        check_whole(skip, take)
        typer.echo(f"{about.name}: {about.summary}")
        if makes_problems(name):
            # Hard puzzles take a second each: no more than are shown.
            options.setdefault("size", skip + (take or count))
        rows = load(name, split, skip, take, **options)
        asked = [(each.id, each.kind, each.question, each.answer, each.image or "") for each in rows.problems[:count]]
        shown = [(each.id, each.path) for each in rows.pictures[:count]]
        header = ("problem", "kind", "question", "answer", "image") if asked else ("picture", "path")
        show(plain_table(header, asked or shown))
        typer.echo(
            f"{len(rows.problems)} problems, {len(rows.pictures)} images"
            + "".join(f", {number} left out: {reason}" for reason, number in rows.dropped)
        )


def main() -> None:
    """Entry point of the command."""
    # Libraries' own bars and notices would tear ours; they read these when first imported, which comes later.
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    app(prog_name="trivium")


def _follow(ranks: Ranks) -> int:
    from pipelines.launching.joined import follow
    from pipelines.stop import Stop, polite_signals

    # What to do about a signal is for the first process to say, which gets it too.
    with polite_signals(Stop(), said=False):
        return follow(ranks)


def _plan(recipe: Recipe, root: Path, selection: Selection, on: str | None) -> None:
    from pipelines.chain import unseen
    from pipelines.cost.devices import device
    from pipelines.cost.show import cost
    from pipelines.launching.checks import commands
    from pipelines.plan import check_workers, legs, plan
    from pipelines.remote.copies import shown
    from pipelines.tables import plan_table

    machine, parts = device(on), legs(recipe, root)
    steps, selected = plan(parts), selection.of(parts)
    due = [step for step in steps if step.reason and step.leg.label + step.link.name in selected]
    if on is None:
        check_workers(recipe, due)
    typer.echo(shown(root))
    show(plan_table(steps, selected))
    table, lines = cost(steps, selected, machine, hint=on is None)
    if table is not None:
        show(table)
    for line in lines:
        typer.echo(line)
    for line in commands(due):
        typer.echo(line)
    for line in unseen(recipe):
        typer.echo(f"note: {line}")


def _run(path: Path, overrides: list[str], runs: Path, selection: Selection, ranks: Ranks | None) -> None:
    from pipelines import runner
    from pipelines.launching.joined import leading
    from pipelines.recipe import load_recipe
    from pipelines.store import read_run
    from pipelines.tables import number_table, run_table

    with leading(ranks) as lead:
        recipe = load_recipe(path, overrides)
        if lead is not None:
            lead.wait(recipe.launch.timeout)
        root = runs / recipe.name
        runner.run(recipe, root, selection, typer.echo, command_line(), lead)
    finished = read_run(root)
    show(run_table(finished), number_table(finished))
    page = root / "report.html"
    if page.exists():
        typer.echo(f"report: {page}")


if __name__ == "__main__":
    main()
