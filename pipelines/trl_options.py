"""Which options TRL's config classes know, read from the installed source so that torch stays unimported."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.source import nearest

_FILES = {
    "SFTConfig": ("trl", "trainer/sft_config.py"),
    "_BaseConfig": ("trl", "trainer/base_config.py"),
    "TrainingArguments": ("transformers", "training_args.py"),
}


def check_trl(options: Mapping[str, Any], config: str, owned: Collection[str], stage: str) -> Iterator[str]:
    """One line for each option that `config` has not, or that the stage sets itself."""
    known = config_fields(config)
    for key in options:
        if key in owned:
            yield f"stages.{stage}.trl.{key}: is set by the stage itself; use the stage's own settings"
        elif key not in known:
            close = nearest(key, known - set(owned))
            yield f"stages.{stage}.trl.{key}: no option of TRL's {config}{close if 'did you mean' in close else ''}"


@cache
def config_fields(name: str) -> frozenset[str]:
    """The dataclass fields of a config class and its bases."""
    package, file = _FILES[name]
    # find_spec of a top-level package locates it without running its code.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed", name=package)
    path = Path(spec.submodule_search_locations[0]) / file
    tree = ast.parse(path.read_text(encoding="utf-8"))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    fields = {
        each.target.id for each in body.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }
    for base in body.bases:
        if isinstance(base, ast.Name) and base.id in _FILES:
            fields |= config_fields(base.id)
    return frozenset(fields)
