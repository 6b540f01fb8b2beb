"""`trivium rewards`: what rewards there are, and whether one keeps its contract."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.terminal import echo_columns, one_line, show

rewards_app = typer.Typer(help="Look at rewards.", no_args_is_help=True)


@rewards_app.command("list")
def rewards_list() -> None:
    """All rewards."""
    from rewards.registry import entries, is_step_reward

    kinds = {True: "step reward", False: "reward", None: ""}
    echo_columns(
        [(each.name, kinds[is_step_reward(each.name)], f"version {each.version}", each.summary) for each in entries()]
    )


@rewards_app.command("show")
def rewards_show(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """What a reward does."""
    with one_line():
        from inspect import getdoc

        from rewards.registry import entry, load
        from rewards.steps import takes_steps

        found, reward = entry(name), load(name)
        kind = "step reward" if takes_steps(reward) else "reward"
        about = getdoc(reward) or found.summary
        typer.echo(f"{found.name} ({kind}, version {found.version}, {found.target})\n\n{about}")


@rewards_app.command("check")
def rewards_check(
    reference: Annotated[str, typer.Argument(metavar="REF", help="A name, or path/to/file.py:function.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Arguments of the reward, such as target=100")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSONL: columns, and `completion` or `answer`, a right one.")
    ] = None,
) -> None:
    """Try a reward, or a step reward, on right, wrong, long and hostile completions. Exit code 1 where it fails."""
    with one_line():
        from pipelines.source import parse_assignment
        from pipelines.tables import findings_table
        from rewards.check import check, rows_of
        from rewards.samples import sample_rows

        options = {".".join(keys): value for keys, value in map(parse_assignment, overrides or [])}
        findings = check(reference, sample_rows(reference) if data is None else rows_of(data), options)
        show(findings_table(findings))
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


@rewards_app.command("new")
def rewards_new(
    reference: Annotated[str, typer.Argument(metavar="FILE.py:FUNCTION", help="Where it is to stand.")],
    steps: Annotated[bool, typer.Option("--steps", help="One that grades the steps of completions.")] = False,
) -> None:
    """Write a reward to begin with, which passes the check."""
    with one_line():
        from rewards.template import write

        typer.echo(f"{write(reference, steps)}\nTry it: trivium rewards check {reference}")
