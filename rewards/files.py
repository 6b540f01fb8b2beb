"""Functions of a user's files, by reference: `path/to/file.py:function`. `sys.path` is never touched."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from engines.spelling import did_you_mean
from rewards.contract import RewardError


@dataclass(frozen=True, slots=True)
class Written:
    """What reading a file tells of a function in it. `digest` changes with the file."""

    path: Path
    attribute: str
    digest: str
    summary: str


def is_file(reference: str) -> bool:
    """Whether a reference is of the form `path/to/file.py:function`, wherever that file is."""
    return reference.rpartition(":")[0].endswith(".py")


def written(reference: str, what: str) -> Written:
    """Reads the file of a reference, and does not run it; `what` it is for begins messages.

    Raises:
        RewardError: it cannot be read, or defines no such name.
    """
    place, _, attribute = reference.rpartition(":")
    path = Path(place).expanduser()
    try:
        content = path.read_bytes()
        names = _defined(ast.parse(content))
    except OSError as error:
        raise RewardError(f"{what} {reference}: {place} cannot be read ({error.strerror})") from None
    except (SyntaxError, ValueError) as error:
        raise RewardError(f"{what} {reference}: {place} is no Python ({error})") from None
    if attribute not in names:
        raise RewardError(f"{what} {reference}: {place} defines no `{attribute}`{did_you_mean(attribute, names)}")
    summary = names[attribute].partition("\n")[0]
    return Written(path, attribute, hashlib.sha256(content).hexdigest()[:12], summary)


def function(path: str, attribute: str) -> Callable[..., Any]:
    """What a file defines under a name. The file is run once in each process.

    Raises:
        RewardError: it cannot be loaded, or what it defines cannot be called.
    """
    found = getattr(_module(path), attribute, None)
    if not callable(found):
        raise RewardError(f"{path}: `{attribute}` is {'no function' if found is not None else 'not defined'}")
    return cast(Callable[..., Any], found)


def _defined(tree: ast.Module) -> dict[str, str]:
    """What a module binds at its top, with docstrings where there are any."""
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[node.name] = ast.get_docstring(node) or ""
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id: "" for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name: "" for alias in node.names}
    return found


def _module(path: str) -> Any:
    """The module of a file, loaded once in each process, under a name that its path alone decides."""
    name = f"trivium_reward_{hashlib.sha256(path.encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise RewardError(f"{path}: cannot be loaded ({what}){_way_out(path, error)}") from error
    return module


def _way_out(path: str, error: BaseException) -> str:
    """What to do where a file imports another that stands beside it, as it could where it were run itself."""
    folder = Path(path).parent
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if not name or not ((folder / f"{name}.py").exists() or (folder / name).is_dir()):
        return ""
    return f"; files beside it are not on Python's path: install `{name}`, or set PYTHONPATH={folder}"
