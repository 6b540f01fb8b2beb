"""The run store: finished and unfinished runs under one directory, read back for tables and comparisons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from pipelines.errors import RunError
from pipelines.manifest import MANIFEST_FILE, Manifest, finished_stages
from pipelines.remote.copies import fetch_run, mirror_of, names_at, shown
from pipelines.runner import RECIPE_FILE
from pipelines.source import flatten, nearest


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One run's directory. `manifests`: stage (`seed-N/STAGE` in a run over seeds) -> manifest, in order of time."""

    directory: Path
    recipe: dict[str, Any]
    manifests: dict[str, Manifest]


def read_run(directory: Path) -> StoredRun:
    """Reads a run. Raises `RunError` where the directory holds none."""
    path = directory / RECIPE_FILE
    if not path.is_file():
        raise RunError(f"{directory}: holds no run (no {RECIPE_FILE})")
    found = []
    for each in finished_stages(directory):
        manifest = Manifest.read(each)
        if manifest is not None:
            found.append((str(each.relative_to(directory)), manifest))
    found.sort(key=lambda item: item[1].started)
    return StoredRun(directory, yaml.safe_load(path.read_text(encoding="utf-8")), dict(found))


def find_run(run: str, runs: Path) -> StoredRun:
    """The run of that path, or of that name under `runs`, to look at: from a URL its checkpoints do not come down.

    Raises `RunError` with the nearest name.
    """
    fetch_run(runs / run, checkpoints=False)
    for directory in (runs / run, Path(run)):
        if (directory / RECIPE_FILE).is_file():
            return read_run(directory)
    names = [path.parent.name for path in runs.glob(f"*/{RECIPE_FILE}")]
    raise RunError(f"no run `{run}` in {shown(runs)}{nearest(run, names)}")


def list_runs(runs: Path) -> list[StoredRun]:
    """All runs under a directory, by name. Of those at a URL only recipes and manifests come down, and do not stay."""
    here = {path.parent.name: path.parent for path in runs.glob(f"*/{RECIPE_FILE}")}
    with TemporaryDirectory() as folder:
        for name in names_at(runs):
            mirror = mirror_of(runs / name)
            assert mirror is not None
            mirror.outline(Path(folder) / name, (RECIPE_FILE, MANIFEST_FILE))
            if (Path(folder) / name / RECIPE_FILE).is_file():
                here[name] = Path(folder) / name
        return [read_run(here[name]) for name in sorted(here)]


def differences(a: StoredRun, b: StoredRun) -> list[tuple[str, Any, Any]]:
    """(key, value in a, value in b) for rows and numbers that differ, then for settings; None where one run has none.

    A section that one run alone has, such as a stage, is one line with the number of its settings.
    """
    results = _differing(_results(a), _results(b))
    left, right = (flatten({key: run.recipe[key] for key in run.recipe if key != "name"}) for run in (a, b))
    section = {key: _section(key, right if key in left else left) for key in left.keys() ^ right.keys()}
    size = Counter(section.values())
    shown: dict[str, tuple[Any, Any]] = {}
    for key, before, after in _differing(left, right):
        whole = section.get(key, key)
        if size[whole] > 1:
            told = f"{size[whole]} settings"
            shown[whole] = (told, None) if key in left else (None, told)
        else:
            shown[key] = (before, after)
    return [*results, *((f"recipe.{key}", *values) for key, values in shown.items())]


def _section(key: str, other: Mapping[str, Any]) -> str:
    """The outermost section around a setting that the other run has nothing of; the setting itself where it has all."""
    parts = key.split(".")
    for length in range(1, len(parts)):
        section = ".".join(parts[:length])
        if section not in other and not any(each.startswith(f"{section}.") for each in other):
            return section
    return key


def _differing(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    keys = [*left, *(key for key in right if key not in left)]
    return [(key, left.get(key), right.get(key)) for key in keys if left.get(key) != right.get(key)]


def _results(run: StoredRun) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for stage, manifest in run.manifests.items():
        if manifest.kind == "report":
            continue
        flat[f"{stage}: rows in"], flat[f"{stage}: rows out"] = manifest.rows_in, manifest.rows_out
        flat |= {f"{stage}: dropped, {reason}": count for reason, count in manifest.dropped.items()}
        flat |= {f"{stage}: {name}": value for name, value in manifest.numbers.items()}
    return flat
