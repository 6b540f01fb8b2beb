"""What TRL's config classes take, read from the installed source so that torch stays unimported."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_type_hints

from pipelines.source import nearest

_FILES = {
    "SFTConfig": ("trl", "trainer/sft_config.py"),
    "GRPOConfig": ("trl", "trainer/grpo_config.py"),
    "_BaseConfig": ("trl", "trainer/base_config.py"),
    "TrainingArguments": ("transformers", "training_args.py"),
}
_CHOICES = {
    "SchedulerType": ("transformers", "trainer_utils.py"),
    "IntervalStrategy": ("transformers", "trainer_utils.py"),
    "SaveStrategy": ("transformers", "trainer_utils.py"),
    "HubStrategy": ("transformers", "trainer_utils.py"),
    "OptimizerNames": ("transformers", "training_args.py"),
}

_NAMES = {"Any": Any, "Literal": Literal}
"""What annotations may use besides builtins."""


_OWN = "the stage's own settings"
_INSTEAD = {
    "report_to": "the recipe's `report_to`",
    "ddp_timeout": "`launch.timeout`",
    **dict.fromkeys(("fsdp", "fsdp_config", "deepspeed"), "`launch.strategy`"),
}


def check_trl(options: Mapping[str, Any], config: str, owned: Collection[str], stage: str) -> Iterator[str]:
    """One line for each option that `config` has not, that the stage sets itself, or whose value cannot be one."""
    known = config_fields(config)
    for key, value in options.items():
        where = f"stages.{stage}.trl.{key}"
        if key in owned:
            yield f"{where}: is set by the stage itself; use {_INSTEAD.get(key, _OWN)}"
        elif key not in known:
            close = nearest(key, set(known) - set(owned))
            yield f"{where}: no option of TRL's {config}{close if 'did you mean' in close else ''}"
        elif complaint := _wrong_value(ast.unparse(known[key]), value):
            yield f"{where}: {complaint}"


@cache
def config_fields(name: str) -> Mapping[str, ast.expr]:
    """The dataclass fields of a config class and its bases, with their annotations."""
    body = _class(*_FILES[name], name)
    fields: dict[str, ast.expr] = {}
    for base in body.bases:
        if isinstance(base, ast.Name) and base.id in _FILES:
            fields |= config_fields(base.id)
    return fields | {
        each.target.id: each.annotation
        for each in body.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }


@cache
def choices(name: str) -> tuple[str, ...]:
    """The values of one of the classes of choices that the configs use."""
    body = _class(*_CHOICES[name], name).body
    return tuple(ast.literal_eval(each.value) for each in body if isinstance(each, ast.Assign))


def _wrong_value(annotation: str, value: Any) -> str | None:
    from pydantic import TypeAdapter, ValidationError

    first, _, _ = annotation.partition(" ")
    if first in _CHOICES:
        # Written `Choice | str` there, because a string is turned into the choice; not every string can be.
        possible = choices(first)
        return None if value in possible else f"{value!r} is no {first}{nearest(str(value), possible)}"
    try:
        expected = get_type_hints(type("_", (), {"__annotations__": {"option": annotation}}), _NAMES)["option"]
    except NameError:
        return None  # a class of theirs: it takes care of its own values
    try:
        # Strict: the config classes convert nothing, so that "1e-3" would stay a string until it is multiplied.
        TypeAdapter(expected).validate_python(value, strict=True)
    except ValidationError:
        return f"takes {annotation}, not {value!r}"
    return None


def _class(package: str, file: str, name: str) -> ast.ClassDef:
    return next(node for node in _module(package, file).body if isinstance(node, ast.ClassDef) and node.name == name)


@cache
def _module(package: str, file: str) -> ast.Module:
    # find_spec of a top-level package locates it without running its code.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed", name=package)
    path = Path(spec.submodule_search_locations[0]) / file
    return ast.parse(path.read_text(encoding="utf-8"))
