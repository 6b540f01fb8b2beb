"""`trivium eval`: checkpoints on suites, and what can be done with their trials afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from pipelines.terminal import Runs, command_line, echo_columns, one_line, options_of, show

if TYPE_CHECKING:
    import click

EXIT_NOT_MET = 1


class _Group(TyperGroup):
    """What is no command is a checkpoint: `eval CHECKPOINT` is short for `eval ask CHECKPOINT`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["ask", *args]
        return super().parse_args(ctx, args)


eval_app = typer.Typer(
    cls=_Group,
    help="Measure checkpoints: trivium eval CHECKPOINT --suite NAME; options: trivium eval ask --help.",
    no_args_is_help=True,
)


@eval_app.command("ask")
def eval_checkpoint(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="A model or adapter directory, or a hub name.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Such as engine.kind=vllm, engine.batch_size=64, suite.decoding.temperature=0.7",
        ),
    ] = None,
    suite: Annotated[
        str, typer.Option("--suite", metavar="NAME[,NAME]", help="Names, rg:NAME, lm-eval:TASK or YAML files.")
    ] = "",
    k: Annotated[str, typer.Option("--k", metavar="K[,K]", help="The k of pass@k, pass^k and maj@k.")] = "1",
    n: Annotated[
        int | None, typer.Option("--n", min=1, help="Answers to each problem; the largest k unless given.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="The first so many problems of each suite alone.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="BASE", help="A checkpoint that is asked too, or a run that was.")
    ] = None,
    require: Annotated[
        str | None, typer.Option(metavar="better|not-worse", help="Than BASE on every suite, else exit code 1.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="The run's name; eval- and the checkpoint's (run-stage) unless given."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Check data, gold answers and lengths, say what would be asked, and stop.")
    ] = False,
    runs: Runs = Path("runs"),
) -> None:
    """Ask a checkpoint the problems of suites. What was asked before is kept; suites add up in one run."""
    with one_line():
        from pipelines import runner
        from pipelines.errors import RunError
        from pipelines.eval_command import check_asked, check_requirement, plan_lines, recipe_of, results_of, unmet
        from pipelines.eval_tables import comparison_table, result_table
        from pipelines.launching.ranks import Ranks
        from pipelines.plan import Selection

        if (ranks := Ranks.of(os.environ)) is not None:
            raise RunError(
                f"trivium eval runs in one process, and {ranks.launcher} started {ranks.world}; start it by itself, "
                "with engine.replicas=N for several workers"
            )
        check_requirement(require, against)
        chosen = [*(overrides or []), *([] if limit is None else [f"limit={limit}"])]
        recipe, asked = recipe_of(checkpoint, suite, k, n, against, name, chosen, runs)
        root = runs / recipe.name
        if plan:
            show(plan_lines(recipe, root, typer.echo))
            return
        check_asked(recipe)
        runner.run(recipe, root, Selection(), typer.echo, command_line())
        results = results_of(recipe, root)
        show(result_table(results))
        if any(each.result["comparisons"] for each in results):
            show(comparison_table(results))
        typer.echo(f"report: {root / 'report.html'}")
        failed = unmet(results, asked, require)
    if failed:
        typer.echo(f"--require {require} is not met: {', '.join(failed)}", err=True)
        raise typer.Exit(EXIT_NOT_MET)


@eval_app.command("rescore")
def eval_rescore(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or its directory.")],
    reward: Annotated[str | None, typer.Option(metavar="NAME", help="The reward to grade by.")] = None,
    strict: Annotated[str | None, typer.Option(metavar="FORM", help="The form of strict extraction.")] = None,
    flexible: Annotated[str | None, typer.Option(metavar="FORM", help="The form of flexible extraction.")] = None,
    suite: Annotated[str | None, typer.Option(metavar="NAME", help="Of this suite alone.")] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Grade a run's saved answers again, without the model. The old numbers stay."""
    with one_line():
        from pipelines.errors import RunError
        from pipelines.eval_tables import moved_table
        from pipelines.remote.copies import publish_run
        from pipelines.report import write_report
        from pipelines.rescore import rescore
        from pipelines.store import find_run

        forms = {key: value for key, value in (("strict", strict), ("flexible", flexible)) if value is not None}
        if reward is None and not forms:
            raise RunError("nothing to change: give --reward NAME, --strict FORM or --flexible FORM")
        found = find_run(run, runs)
        for each in rescore(found.directory, reward, forms, suite):
            show(moved_table(each))
            typer.echo(f"written: {each.directory}")
        typer.echo(f"report: {write_report(found.directory)}")
        publish_run(found.directory)


@eval_app.command("import")
def eval_import(
    place: Annotated[Path, typer.Argument(metavar="FOLDER", help="What lm-eval wrote with --log_samples.")],
    name: Annotated[
        str | None, typer.Option(metavar="RUN", help="The run's name; lm-eval-CHECKPOINT unless given.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="CHECKPOINT", help="The checkpoint's name; that in the results unless given.")
    ] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Make a run of lm-evaluation-harness's own results: intervals, a report, something to compare with."""
    with one_line():
        from pipelines.eval_tables import result_table
        from pipelines.evaluation import stored
        from pipelines.imported import import_results
        from pipelines.remote.copies import publish_run
        from pipelines.report import write_report

        root = import_results(place, runs, name, label)
        show(result_table(stored(root)))
        typer.echo(f"report: {write_report(root)}")
        publish_run(root)


@eval_app.command("split")
def eval_split(
    graph: Annotated[Path, typer.Argument(metavar="GRAPH.yaml", help="Factors and modules; see docs/evaluation.md.")],
    table: Annotated[str, typer.Argument(metavar="TABLE", help="Problems with their factors: JSONL, CSV or Parquet.")],
    target: Annotated[Path, typer.Argument(metavar="FOLDER", help="For train.jsonl, test.jsonl and split.json.")],
    train: Annotated[
        int | None,
        typer.Option("--train", min=1, help="Training combinations; the fewest that cover all unless given."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
) -> None:
    """Part problems in training ones, unseen ones composable from them, and blocked ones."""
    with one_line():
        from eval.composition.files import split_files

        made = split_files(graph, table, target, seed, train)
        combos = ", ".join(f"{kind} {number}" for kind, number in made.combos().items())
        lost = "".join(f"; {number} left out: {reason}" for reason, number in made.dropped.items())
        typer.echo(f"{len(made.train)} problems to train on, {len(made.test)} to test on{lost}")
        typer.echo(f"combinations: {combos}; written: {target}")


@eval_app.command("composed")
def eval_composed(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run that was evaluated on test.jsonl of a split.")],
    split: Annotated[Path, typer.Argument(metavar="SPLIT.json", help="Of `trivium eval split`.")],
    suite: Annotated[str | None, typer.Option(metavar="NAME", help="Which suite; the last one unless given.")] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Accuracy on combinations seen, composable and blocked, with respect to the split's module graph."""
    with one_line():
        from eval.composition.report import composition_report
        from pipelines.evaluation import find_stored
        from pipelines.store import find_run

        for each in find_stored(find_run(run, runs).directory, suite).evaluated():
            typer.echo(composition_report(each.trials, split).text())


@eval_app.command("suites")
def eval_suites() -> None:
    """All suites."""
    with one_line():
        from eval.registry import entries

        echo_columns(list(entries()))


@eval_app.command("show")
def eval_show(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A name, rg:NAME or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Keys of the suite, such as data.size=20")
    ] = None,
    count: Annotated[int, typer.Option("-n", min=1, help="How many problems.")] = 2,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="CHECKPOINT", help="Show the text that this one reads, chat template and all.")
    ] = None,
) -> None:
    """A suite's settings, and its first problems as a model meets them."""
    with one_line():
        from pipelines.eval_command import suite_text

        typer.echo(suite_text(suite, options_of(overrides or []), count, checkpoint))
