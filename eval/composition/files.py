"""A split as files: `train.jsonl` and `test.jsonl` for the task `table`, and `split.json`, which says what they are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.composition.schema import factored
from eval.composition.split import CLASSES, Split, split
from tasks.problem import Problem, TaskError

TRAIN, TEST, ABOUT = "train.jsonl", "test.jsonl", "split.json"
_OURS = ("combo", "blocked_by")


@dataclass(frozen=True, slots=True)
class Label:
    """What a split says of a test problem."""

    kind: str
    combo: str
    blocked_by: tuple[str, ...]
    question: str


@dataclass(frozen=True, slots=True)
class Labels:
    """A split, read back: the graph in words, whether modules are tied, and what each test problem is."""

    graph: tuple[str, ...]
    tied: bool
    covering: bool
    problems: Mapping[str, Label]


def split_files(graph_yaml: Path, table_path: str, out_dir: Path, seed: int, n_train: int | None = None) -> Split:
    """Splits the problems of a table by the module graph of a file, and writes the split's files. Raises `TaskError`.

    `n_train`: see `eval.composition.split.split`.
    """
    from tasks.registry import load

    rows = load("table", source=table_path)
    made = split(rows.problems, factored(graph_yaml, rows.problems), seed, n_train)
    write(made, out_dir, {"graph": str(graph_yaml), "table": table_path, "unreadable": dict(rows.dropped)})
    return made


def write(made: Split, out_dir: Path, sources: Mapping[str, Any]) -> None:
    """Writes a split into a folder; `sources` is kept in `split.json`. Raises `TaskError` where it has another split.

    Columns of a row are `id`, `question`, `answer`, `image` where there is one, `kind` (`train`, or the class), and the
    problem's own; of test rows also `combo` and `blocked_by`, the names of modules parted by commas.
    """
    rows = {
        TRAIN: _lines(made.train, ({"kind": "train"} for _ in made.train)),
        TEST: _lines(
            [each.problem for each in made.test],
            ({"kind": e.kind, "combo": e.combo, "blocked_by": ", ".join(e.blocked_by)} for e in made.test),
        ),
    }
    about = {
        "graph": made.graph.lines(),
        "tied": bool(made.graph.tie),
        "covering": made.covering,
        "seed": made.seed,
        "sources": dict(sources),
        "train": {"combos": made.n_train, "problems": len(made.train)},
        "test": {
            kind: {"combos": made.combos()[kind], "problems": sum(each.kind == kind for each in made.test)}
            for kind in CLASSES
        },
        "blocked_by": dict(Counter(", ".join(each.blocked_by) for each in made.test if each.blocked_by).most_common()),
        "dropped": dict(made.dropped),
    }
    for name, text in rows.items():
        path = out_dir / name
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise TaskError(f"{out_dir}: has the files of another split; choose another folder, or delete it")
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, text in {**rows, ABOUT: json.dumps(about, ensure_ascii=False, indent=1) + "\n"}.items():
        (out_dir / name).write_text(text, encoding="utf-8")


def read(path: Path) -> Labels:
    """What `split.json` and the test rows beside it say. Raises `TaskError` where they cannot be read."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        lines = (path.parent / TEST).read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line]
        labels = {
            row["id"]: Label(
                row["kind"], row["combo"], tuple(filter(None, row["blocked_by"].split(", "))), row["question"]
            )
            for row in rows
        }
        return Labels(tuple(about["graph"]), about["tied"], about["covering"], labels)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        told = f" ({error.strerror}: {error.filename})" if isinstance(error, OSError) else ""
        both = "`trivium eval split` writes both"
        raise TaskError(f"{path}: no {ABOUT} of a composable split, with its {TEST} beside it{told}; {both}") from None


def _lines(problems: Iterable[Problem], more: Iterable[Mapping[str, str]]) -> str:
    return "".join(f"{_line(problem, each)}\n" for problem, each in zip(problems, more, strict=True))


def _line(problem: Problem, more: Mapping[str, str]) -> str:
    for name in _OURS:
        if name in problem.columns:
            raise TaskError(f"the table has a column `{name}`, which a split writes itself: give it another name")
    image = {"image": problem.image} if problem.image else {}
    row = {"id": problem.id, "question": problem.question, "answer": problem.answer, **image, **problem.columns, **more}
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TaskError(f"problem `{problem.id}` cannot be written as JSON ({error}): leave out that column") from None
