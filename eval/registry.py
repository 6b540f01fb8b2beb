"""Suites by reference: a name that ships, an entry point, `rg:NAME`, or `path/to/file.yaml`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.spelling import did_you_mean
from eval.suite_file import SuiteError, SuiteFile, parse, read_suite
from tasks.gym_package import PREFIX

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "trivium.suites"
"""The entry points that other packages offer suites under: each names a path, or a function that gives one."""
SHIPPED = Path(__file__).with_name("suites")
GYM_SIZE = 256
"""Problems of a suite `rg:NAME`."""


def names() -> list[str]:
    """Every suite that has a name of its own, in alphabetical order."""
    return sorted({path.stem for path in SHIPPED.glob("*.yaml")} | {point.name for point in _points()})


def entries() -> Iterator[tuple[str, str]]:
    """(name, summary) of every suite, and of the family `rg:NAME`."""
    for name in names():
        yield name, find(name).summary
    yield "lm-eval:TASK", "a generative task of lm-evaluation-harness, where it is installed"
    yield f"{PREFIX}NAME", f"{GYM_SIZE} problems of a dataset of reasoning-gym, graded by its scorer where that is safe"


def find(reference: str) -> SuiteFile:
    """The suite behind a reference. Raises `SuiteError` with the nearest name."""
    if reference.endswith((".yaml", ".yml")):
        return read_suite(Path(reference).expanduser())
    if reference.startswith(PREFIX):
        return _of_gym(reference)
    path = SHIPPED / f"{reference}.yaml"
    if "/" not in reference and path.is_file():
        return read_suite(path)
    for point in _points():
        if point.name == reference:
            return _of_point(point)
    there = f"; there are: {', '.join(names())}, {PREFIX}NAME, or path/to/file.yaml"
    raise SuiteError(f"no suite is called `{reference}`{did_you_mean(reference, names(), there)}")


def label(reference: str) -> str:
    """A name for results and directories: that of a file without its ending."""
    return Path(reference).stem if reference.endswith((".yaml", ".yml")) else reference


def _of_gym(reference: str) -> SuiteFile:
    """Graded by the dataset's own scorer, or by the reward that its refusal names in place of it."""
    from rewards.reasoning_gym import REFUSED

    dataset = reference.removeprefix(PREFIX)
    _, instead = REFUSED.get(dataset, ("", None))
    values = {
        "version": 1,
        "summary": f"{GYM_SIZE} problems of reasoning-gym's {dataset}",
        "data": {"task": reference, "split": "test", "size": GYM_SIZE},
        "prompt": {"after": "\n\nEnd with the answer alone in <answer></answer>."},
        "answer": {"strict": "answer_tag", "flexible": "cue"},
        "reward": instead or reference,
        "decoding": {"max_new_tokens": 512},
    }
    return parse(values, reference)


def _of_point(point: EntryPoint) -> SuiteFile:
    try:
        named = point.load()
    except (ImportError, AttributeError) as error:
        raise SuiteError(f"suite `{point.name}` cannot be imported from {point.value}: {error}") from error
    return read_suite(Path(named() if callable(named) else named))


def _points() -> list[EntryPoint]:
    from importlib.metadata import entry_points

    return list(entry_points(group=GROUP))


def with_overrides(name: str, file: SuiteFile, overrides: Mapping[str, Any]) -> tuple[str, SuiteFile]:
    """A suite with dotted keys set otherwise is another suite, under a name that says so. Raises `SuiteError`."""
    if not overrides:
        return name, file
    values = file.model_dump(mode="json", exclude_unset=True)
    for dotted, value in overrides.items():
        *parents, last = dotted.split(".")
        place = values
        for key in parents:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise SuiteError(f"{name}: {dotted}: `{key}` is a value, which has no keys")
        place[last] = value
    changed = parse(values, name)
    changed.take_paths(file)
    return f"{name}+{changed.digest[:6]}", changed
