"""What commands share: errors in one line, tables, options. Imports nothing heavy."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130


def _runs(place: str | Path) -> Path:
    """Where runs are kept: a folder, or the working copy of a URL."""
    from tasks.remote import is_url

    if not is_url(place):
        return Path(place)
    if str(place).startswith("memory:"):
        raise typer.BadParameter(f"{place}: what is in memory ends with this command; name a store that keeps it")
    from pipelines.remote.copies import working_copy

    return working_copy(str(place))


Runs = Annotated[
    Path, typer.Option("--runs", metavar="DIR", parser=_runs, help="Where runs are kept: a folder, or a URL.")
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or its directory.")]


@contextmanager
def one_line() -> Iterator[None]:
    """Turns the user's mistakes into one line and exit code 2, an interruption into a word on how to go on."""
    from pipelines.errors import Interrupted, explain

    try:
        yield
    except Interrupted as interruption:
        typer.echo(f"stopped: {interruption}; to go on: {command_line()}", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        typer.echo(f"error: {message}", err=True)
        raise typer.Exit(EXIT_MISTAKE) from None


def command_line() -> str:
    """The command that this process was started by, as one would type it."""
    return shlex.join(["trivium", *sys.argv[1:]])


def options_of(assignments: Sequence[str]) -> dict[str, Any]:
    """`a.b=VALUE` of the command line as dotted key -> value. Raises `RecipeError`."""
    from pipelines.source import parse_assignment

    return {".".join(keys): value for keys, value in map(parse_assignment, assignments)}


def task_options(assignments: Sequence[str]) -> dict[str, Any]:
    """`options_of` for a task that is named on the command line, as its split is. Raises `RecipeError`."""
    from pipelines.errors import RecipeError

    options = options_of(assignments)
    if "split" in options:
        raise RecipeError(f"`split={options['split']}`: here the split is an option: --split {options['split']}")
    if "task" in options:
        raise RecipeError(f"`task={options['task']}`: the task is the first argument, without task=; leave this out")
    return options


def echo_columns(rows: Sequence[Sequence[str]]) -> None:
    """Aligned text without a table's imports, for the commands that have to be quick."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def show(*tables: Table) -> None:
    """Prints tables, wide where what reads them is no terminal. Of several, those without a row are left out."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = 160  # Not 80: what reads a pipe can take long lines.
    for table in tables:
        if table.row_count or len(tables) == 1:
            console.print(table)
