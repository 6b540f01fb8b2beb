"""The text of a recipe: YAML with the place of every key, dotted overrides, and errors that point at the text."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from engines.spelling import did_you_mean
from pipelines.errors import RecipeError

Keys = tuple[str | int, ...]
COMMAND_LINE = "command line"


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-4` as text; people mean a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


class Source:
    """A recipe's raw data, and where each key of it was written."""

    def __init__(self, data: dict[str, Any], name: str, lines: dict[Keys, int] | None = None) -> None:
        self.data = data
        self.name = name
        self._lines = lines or {}
        self._overridden: set[Keys] = set()

    @classmethod
    def read(cls, path: Path) -> Source:
        """Reads a YAML file. Raises `RecipeError` where it is missing, no file, no text, no YAML or no mapping."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            beside = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
            raise RecipeError(f"{path}: no such recipe{nearest(path.name, beside)}") from None
        except IsADirectoryError:
            raise RecipeError(f"{path}: is a directory; name the YAML file of a recipe") from None
        except UnicodeDecodeError:
            raise RecipeError(f"{path}: is no UTF-8 text; a recipe is a YAML file") from None
        loader = _Loader(text)
        lines: dict[Keys, int] = {}
        try:
            node = loader.get_single_node()
            if not isinstance(node, yaml.MappingNode):
                raise RecipeError(f"{path}: holds no mapping; a recipe has `name`, `model`, `data` and `stages`")
            _note_lines(node, (), lines, path)
            data: dict[str, Any] = loader.construct_document(node)
        except yaml.MarkedYAMLError as error:
            where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
            raise RecipeError(f"{path}{where}: no valid YAML: {error.problem}") from None
        except yaml.YAMLError as error:
            raise RecipeError(f"{path}: no valid YAML: {' '.join(str(error).split())}") from None
        finally:
            loader.dispose()
        return cls(data, str(path), lines)

    def override(self, assignments: Iterable[str]) -> Source:
        """A copy with `key=value` applied, values read as YAML; stages go by name: `stages.tune.epochs=3`."""
        changed = Source(copy.deepcopy(self.data), self.name, self._lines)
        changed._overridden = set(self._overridden)
        parsed = [(*parse_assignment(text), text) for text in assignments]
        # `engine.kind` goes first: it drops what speaks of the other engine, but not what this command says of the new.
        for keys, value, text in sorted(parsed, key=lambda each: each[0] != ["engine", "kind"]):
            if keys[0] in _labels(changed.data.get("stages")) and keys[0] not in changed.data:
                raise RecipeError(f"`{text}`: a stage's keys stand under `stages`; write stages.{text}")
            changed._overridden.add(assign(changed.data, keys, value, f"`{text}`"))
        return changed

    def where(self, keys: Sequence[str | int]) -> str:
        """`FILE, line N: a.b.c` for a place in the data; the nearest enclosing key's line if it has none of its own."""
        shown = spell(self.data, keys)
        for length in range(len(keys), 0, -1):
            place = tuple(keys[:length])
            if place in self._overridden:
                return f"{COMMAND_LINE}: {shown}"
            if place in self._lines:
                return f"{self.name}, line {self._lines[place]}: {shown}"
        return f"{self.name}: {shown}" if shown else self.name


def spell(data: Any, keys: Sequence[str | int]) -> str:
    """Dotted form of a path, list elements by their name or kind where they have one."""
    parts: list[str] = []
    for key in keys:
        data = data[key] if _has(data, key) else None
        label = data.get("name") or data.get("kind") if isinstance(key, int) and isinstance(data, dict) else None
        parts.append(str(label or key))
    return ".".join(parts)


def assign(data: Any, keys: Sequence[str], value: Any, what: str) -> Keys:
    """Sets `value` at a dotted path, making mappings on the way; returns the path with list positions as numbers.

    Raises `RecipeError` (beginning with `what`) where a list has no such element or a plain value is in the way.
    """
    place: list[str | int] = []
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        step: str | int = key
        if isinstance(data, list):
            step = _position(data, key, f"{what}: {'.'.join(keys[:depth])}")
        elif not isinstance(data, dict):
            raise RecipeError(f"{what}: {'.'.join(keys[:depth])} is the value {data!r}, which has no keys")
        place.append(step)
        if last:
            data[step] = value
            if list(keys) == ["engine", "kind"]:
                _keep_known_engine_keys(data, value)
        else:
            if isinstance(data, dict) and data.get(key) is None:
                data[key] = {}
            data = data[step]
    return tuple(place)


def nearest(word: str, among: Iterable[str]) -> str:
    """`; did you mean …?`, else `; there are: …`, else nothing."""
    names = sorted(among)
    return did_you_mean(word, names, f"; there are: {', '.join(names)}" if names else "")


def parse_assignment(text: str) -> tuple[list[str], Any]:
    """`a.b=VALUE` as the keys and the value, read as YAML; `a[0]` is `a.0`. Raises `RecipeError`."""
    key, equals, value = text.partition("=")
    keys = re.sub(r"\[(\d+)\]", r".\1", key.strip()).split(".")
    if not equals or not all(keys):
        raise RecipeError(f"`{text}`: write key=value, such as stages.tune.epochs=3")
    try:
        return keys, yaml.load(value, _Loader)
    except yaml.YAMLError:
        raise RecipeError(f"`{text}`: the value is no valid YAML; put quotes around it") from None


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys; elements of lists of mappings go by their name or kind."""
    inner: dict[str, Any] = {}
    if isinstance(value, dict):
        inner = value
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        inner = {spell(value, [number]): each for number, each in enumerate(value)}
    if not inner:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, each in inner.items():
        flat |= flatten(each, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _position(elements: list[Any], key: str, what: str) -> int:
    names = _labels(elements)
    if key in names:
        return names.index(key)
    if key.isdigit() and int(key) < len(elements):
        return int(key)
    there = [name or str(number) for number, name in enumerate(names)]
    raise RecipeError(f"{what} has no `{key}`{nearest(key, there)}")


def _labels(elements: Any) -> list[str]:
    """What each element of a list goes by, its name or kind; empty where it has neither, or where this is no list."""
    found = elements if isinstance(elements, list) else []
    return [str(each.get("name") or each.get("kind") or "") if isinstance(each, dict) else "" for each in found]


def _keep_known_engine_keys(engine: dict[str, Any], kind: Any) -> None:
    from pipelines.sections import engine_fields

    known = engine_fields(str(kind))
    for key in [key for key in engine if known and key not in known]:
        del engine[key]


def _has(data: Any, key: str | int) -> bool:
    if isinstance(data, dict):
        return key in data
    return isinstance(data, list) and isinstance(key, int) and key < len(data)


def _note_lines(node: yaml.Node, keys: Keys, lines: dict[Keys, int], path: Path) -> None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            place = (*keys, key_node.value)
            if place in lines:
                line = key_node.start_mark.line + 1
                raise RecipeError(
                    f"{path}, line {line}: `{key_node.value}` is given twice, first on line {lines[place]}"
                )
            lines[place] = key_node.start_mark.line + 1
            _note_lines(value_node, place, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for number, element in enumerate(node.value):
            lines[*keys, number] = element.start_mark.line + 1
            _note_lines(element, (*keys, number), lines, path)
