"""The installed package reasoning-gym as it reads: its datasets and their settings. Importing it takes seconds."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from engines.spelling import did_you_mean
from tasks import packages
from tasks.problem import TaskError

PREFIX = "rg:"
"""Before the name of a dataset, in the names of tasks and rewards."""
COMMON = frozenset({"size", "seed"})
_NAME = re.compile(r'^DATASET_NAME = "(\w+)"', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outline:
    """A dataset: the module that has it, what its docstring begins with, its settings with the text of each default."""

    module: str
    summary: str
    settings: Mapping[str, str]


def directory() -> Path:
    """Where the package is. Raises `TaskError` where it is not installed."""
    return packages.folder("reasoning_gym", "reasoning-gym")


@cache
def modules() -> Mapping[str, Path]:
    """Dataset → the file that makes it, by name."""
    found = {}
    for path in directory().glob("*/**/*.py"):
        if match := _NAME.search(path.read_text(encoding="utf-8")):
            found[match[1]] = path
    return dict(sorted(found.items()))


def known(dataset: str) -> str:
    """The dataset's name. Raises `TaskError` with the nearest one where there is none of this name."""
    if dataset not in modules():
        names = modules()
        hint = did_you_mean(dataset, names, f"; there are: {', '.join(names)}")
        raise TaskError(f"reasoning-gym has no dataset `{dataset}`{hint}")
    return dataset


@cache
def outline(dataset: str) -> Outline:
    """What the source says of a dataset. Raises `TaskError` where there is none."""
    path = modules()[known(dataset)]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    # register_dataset(DATASET_NAME, Dataset, Config[, Curriculum])
    call = next(
        node.value.args
        for node in tree.body
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id == "register_dataset"
    )
    about, config = (classes[each.id] for each in call[1:3] if isinstance(each, ast.Name))
    settings = {
        field.target.id: ast.unparse(field.value) if field.value is not None else "required"
        for field in config.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.target.id not in COMMON
    }
    module = path.relative_to(directory().parent).with_suffix("").as_posix().replace("/", ".")
    return Outline(module, (ast.get_docstring(about) or "").partition("\n")[0], settings)
