"""The sections of a recipe beside its stages: which model, which data."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engines.settings import EngineSettings
from pipelines.files import sha256_of
from selfrefine.build import BuildSpec
from tasks.registry import check_options
from tasks.remote import identity, is_url

if TYPE_CHECKING:
    from tasks.problem import Rows

_READ_FILES, _READ_BYTES = 1000, 64 * 2**20
"""Up to so much is read for a fingerprint; that takes a tenth of a second."""


class ModelSettings(BaseModel):
    """Where the run starts: a model built from scratch (`build`) or a checkpoint (`path`).

    A chain that trains a recurrent reasoner needs neither.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    build: BuildSpec | None = None
    path: str | None = Field(None, description="hub name or directory")
    revision: str | None = Field(None, description="branch, tag or commit of a model on the hub")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of the weights in training; auto is float32. With LoRA, bfloat16 halves the memory"
    )
    trust_remote_code: bool = False
    adapter: str | None = Field(None, description="PEFT adapter directory on top of `path`")

    @model_validator(mode="after")
    def _one_origin(self) -> ModelSettings:
        both = self.build is not None and self.path is not None
        if both or (not self.given and (self.adapter is not None or self.revision is not None)):
            raise ValueError("needs exactly one of `path` and `build`")
        if self.build is not None and (self.adapter is not None or self.revision is not None):
            raise ValueError("`adapter` and `revision` go with `path`, not with `build`")
        if self.revision is not None and (self.adapter is not None or Path(self.path or "").expanduser().exists()):
            raise ValueError("`revision` is of a model on the hub; a local directory or an adapter has none")
        return self

    @property
    def given(self) -> bool:
        """Whether there is a model to start from."""
        return self.build is not None or self.path is not None

    def files(self) -> dict[str, str]:
        """Fingerprints of the local directories it names."""
        named = {"path": self.path, "adapter": self.adapter}
        return {key: fingerprint(Path(value)) for key, value in named.items() if value and Path(value).exists()}


class DataSettings(BaseModel):
    """A slice of a task. Keys beside these are the task's own (columns, a folder, …) and checked by it.
    Files and folders may be URLs that fsspec knows, such as `s3://bucket/data.jsonl` (extra `s3`) or `https://…`: they
    are copied once into `~/.cache/trivium/data`, and anew when they change.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    task: str
    split: str = "train"
    skip: int = Field(0, ge=0, description="leave out the first so many")
    take: int | None = Field(None, ge=1, description="then take so many; all that are left unless given")

    @model_validator(mode="after")
    def _known_to_the_task(self) -> DataSettings:
        # TaskError is a ValueError, so an unknown task is a line of the recipe's errors like any other.
        check_options(self.task, self.model_extra or {})
        return self

    def load(self) -> Rows:
        """The rows. Raises `TaskError`."""
        from tasks.registry import load

        return load(**self.model_dump())

    def check(self) -> str | None:
        """Looks without loading: None, or a line on what cannot be looked at yet. Raises `TaskError`."""
        from tasks.registry import check

        return check(**self.model_dump())

    def columns(self) -> frozenset[str] | None:
        """Names of the problems' `columns`; None where they are not known yet. Raises `TaskError`."""
        from tasks.registry import columns

        return columns(self.task, self.split, **(self.model_extra or {}))

    def files(self) -> dict[str, str]:
        """Fingerprints of the files and directories it names, local ones and those at URLs. Raises `TaskError`."""
        found = {}
        for key, value in (self.model_extra or {}).items():
            if is_url(value):
                found[key] = identity(value)
            elif isinstance(value, str) and (path := Path(value).expanduser()).exists():
                found[key] = fingerprint(path)
        return found


def engine_fields(kind: str) -> frozenset[str]:
    """The keys that `engine:` may have for this kind; none for an unknown kind."""
    union = get_args(EngineSettings)[0]
    for each in get_args(union):
        if each.model_fields["kind"].default == kind:
            return frozenset(each.model_fields)
    return frozenset()


def fingerprint(path: Path) -> str:
    """Identity of a file or directory: by what is in it, or where that is much, by names, sizes and times of change.

    Gigabytes are not read at each start.
    """
    files = [each for each in (sorted(path.rglob("*")) if path.is_dir() else [path]) if each.is_file()]
    states = [each.stat() for each in files]
    read = len(files) <= _READ_FILES and sum(state.st_size for state in states) <= _READ_BYTES
    digest = hashlib.sha256()
    for each, state in zip(files, states, strict=True):
        identity = sha256_of(each) if read else f"{state.st_size}\0{state.st_mtime_ns}"
        digest.update(f"{each.relative_to(path)}\0{identity}\0".encode())
    return digest.hexdigest()
