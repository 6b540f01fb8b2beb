"""The manifest: what a finished stage says went in, what came out, and how. Written last and atomically."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.errors import RunError
from pipelines.files import PARTIAL, sha256_of, write_text
from pipelines.shards import KEY_FILE
from pipelines.source import flatten
from pipelines.stage import Number

MANIFEST_FILE = "manifest.json"
ATTEMPT_FILE = "attempt.json"


def finished_stages(run: Path) -> list[Path]:
    """The directories of a run's finished stages, those of all seeds where it has `seeds:`; by name."""
    return sorted(path.parent for place in ("*", "seed-*/*") for path in run.glob(f"{place}/{MANIFEST_FILE}"))


class OutputFile(BaseModel):
    """One file of a stage's outputs."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    size: int


class Manifest(BaseModel):
    """`source` is what the digest is made of, kept so that a change can be named.

    `seconds` and `peak_memory_mib` speak of the last of `attempts`; memory is that of this process, or of the
    accelerator where there is one. `inputs` holds the fingerprints of the upstream outputs that were read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    kind: str
    digest: str
    source: dict[str, Any]
    inputs: dict[str, str]
    seed: int
    revision: str | None
    uncommitted_changes: bool | None
    packages: dict[str, str]
    device: str
    started: str
    seconds: float
    attempts: int
    peak_memory_mib: int
    rows_in: int | None
    rows_out: int | None
    dropped: dict[str, int]
    numbers: dict[str, Number]
    warnings: list[str] = []
    files: dict[str, OutputFile]

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the outputs: their names and contents."""
        return digest_of({name: file.sha256 for name, file in self.files.items()})

    def write(self, directory: Path) -> None:
        """Puts `manifest.json` in place; from then on the stage is finished."""
        write_text(directory / MANIFEST_FILE, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def read(cls, directory: Path) -> Manifest | None:
        """The manifest of a stage directory, None where the stage is not finished. Raises `RunError` if unreadable."""
        path = directory / MANIFEST_FILE
        if not path.is_file():
            return None
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            where = ".".join(str(key) for key in error.errors()[0]["loc"])
            raise RunError(
                f"{path}: no manifest of this version ({where}); delete the file to run the stage again"
            ) from None

    def damage(self, directory: Path) -> str | None:
        """What is wrong with the outputs at first sight (presence and size; contents are not read), or None."""
        for name, file in self.files.items():
            path = directory / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != file.size:
                return f"{name} was changed"
        return None


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def output_files(directory: Path) -> dict[str, OutputFile]:
    """All files of a stage but the runner's own and shards, by relative name."""
    files = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory)
        if not path.is_file() or str(name) in (MANIFEST_FILE, ATTEMPT_FILE) or path.name.startswith(PARTIAL):
            continue
        if any((parent / KEY_FILE).is_file() for parent in path.parents if parent.is_relative_to(directory)):
            continue
        files[str(name)] = OutputFile(sha256=sha256_of(path), size=path.stat().st_size)
    return files


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """`epochs 3 -> 5` for each key that differs between two digest sources; what follows from upstream comes last."""
    parts = ("settings", "sections", "versions", "seed", "kind")
    old = flatten({part: before.get(part) for part in parts})
    new = flatten({part: after.get(part) for part in parts})
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            name = key.removeprefix("settings.").removeprefix("sections.")
            yield f"{name} {_show(old, key)} -> {_show(new, key)}"
    was, now = before.get("inputs", {}), after.get("inputs", {})
    for name in now:
        if was.get(name) != now[name]:
            yield f"follows {name}"
    for name in was.keys() - now.keys():
        yield f"no longer reads {name}"


def _show(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return "(absent)"
    text = json.dumps(values[key], ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
