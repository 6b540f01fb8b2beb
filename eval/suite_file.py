"""A suite as people write it: a short YAML file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from engines.base import Decoding
from engines.spelling import did_you_mean
from eval.extract import Forms, check_forms
from eval.protocol import NOTHING, Protocol
from eval.suite import Suite
from rewards.files import is_file
from tasks.columns import FORMATS
from tasks.problem import Rows, TaskError
from tasks.registry import check, check_options, load
from tasks.remote import is_url

PATHS = ("source", "images", "folder")
"""Keys of `data` that may be paths."""


class SuiteError(ValueError):
    """A suite that there is not, or that cannot be used as written. The message is one line for each thing wrong."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Prompt(_Section):
    """What is put around a question."""

    system: str | None = Field(None, description="system prompt; none is sent unless given")
    before: str = Field("", description="put before each question")
    after: str = Field("", description="put after each question, such as an answer-format request")


class Published(_Section):
    """What others measured on these problems: a figure to hold one's own against, with where it stands."""

    model: str
    value: float = Field(description="a share, 0 to 1")
    metric: str = "accuracy"
    source: str


class SuiteFile(_Section):
    """The content of a suite file. `data` has the keys of a recipe's data section."""

    version: int = Field(ge=1, description="raise it when the same checkpoint may get another number")
    summary: str
    data: dict[str, Any]
    problems: int | None = Field(None, ge=1, description="how many the data must hold; refused when they hold others")
    prompt: Prompt = Prompt()
    answer: Forms = Field(Forms(), description="the form of the answer, for strict and for flexible extraction")
    reward: str = Field("exact_match", description="1 or more is right")
    also: tuple[str, ...] = Field((), description="further rewards, which are shown and decide nothing")
    factors: tuple[str, ...] = Field((), description="columns of the problems that scores are broken down by")
    decoding: Decoding = Decoding()
    protocol: Protocol = NOTHING
    published: Published | None = None
    _name: str = PrivateAttr("")
    _found: dict[str, str] = PrivateAttr(default_factory=dict)
    _rewards: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("data")
    @classmethod
    def _of_a_task(cls, data: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(data.get("task"), str):
            raise ValueError("needs a `task`, which is a name")
        check_options(data["task"], [key for key in data if key not in ("task", "split", "skip", "take")])
        return data

    @field_validator("answer")
    @classmethod
    def _known_forms(cls, forms: Forms) -> Forms:
        check_forms(forms)
        return forms

    def rows(self) -> Rows:
        """The problems. Raises `TaskError`, also where they are not as many as the suite says, or none has a factor."""
        rows = load(**self.located(self.data))
        if self.problems is not None and len(rows.problems) != self.problems:
            lost = "".join(f", {number} left out: {reason}" for reason, number in rows.dropped)
            raise TaskError(
                f"{self._name or self.data['task']}: the suite is made of {self.problems} problems and the data hold "
                f"{len(rows.problems)}{lost}; another revision or a part of them is another suite"
            )
        there = dict.fromkeys(name for problem in rows.problems for name in problem.columns)
        known = ", ".join(there) or "none"
        for name in self.factors if rows.problems else ():
            if name not in there:
                raise TaskError(
                    f"factors: no problem has a column `{name}`{did_you_mean(name, there, f'; there are {known}')}"
                )
        return rows

    def look(self) -> str | None:
        """Looks at the data without loading rows; a line on what could not be looked at. Raises `TaskError`."""
        return check(**self.located(self.data))

    def find_paths(self, folder: Path) -> None:
        """Looks for its paths beside the file, which is in `folder`, else where the command is called, as of a recipe.

        `data` and the rewards keep what is written: the suite is the same one wherever it lies.
        """
        for key, value in self.data.items():
            if key not in PATHS or not isinstance(value, str) or is_url(value):
                continue
            path = key != "source" or value.startswith(".") or Path(value).suffix in FORMATS
            if place := _beside(folder, value, path):
                self._found[key] = place
        for reference in filter(is_file, (self.reward, *self.also)):
            file, _, function = reference.rpartition(":")
            if place := _beside(folder, file, True):
                self._rewards[reference] = f"{place}:{function}"

    def take_paths(self, other: SuiteFile) -> None:
        """Finds those paths that it has from another suite where that one does, whose name it goes by in errors."""
        self._name = other._name
        self._found.update({key: each for key, each in other._found.items() if self.data.get(key) == other.data[key]})
        mine = (self.reward, *self.also)
        self._rewards.update({name: place for name, place in other._rewards.items() if name in mine})

    def located(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """A data section with those paths that are this file's led to where they are."""
        return {**data, **{key: place for key, place in self._found.items() if data.get(key) == self.data[key]}}

    @property
    def rewards(self) -> Mapping[str, str]:
        """Reference as it is written -> reference that leads there, of those rewards that are files beside this one."""
        return self._rewards

    def reference(self, reward: str) -> str:
        """Where one of its rewards, as it is written, leads: to the file beside this one, where it is such."""
        return self._rewards.get(reward, reward)

    def suite(self, name: str, engine: Mapping[str, Any], problems: int) -> Suite:
        """The suite as it is run. `problems`: how many there are, of which a limited run takes fewer."""
        return Suite(
            name=name,
            reward=self.reward,
            decoding=self.decoding,
            system=self.prompt.system,
            prefix=self.prompt.before,
            suffix=self.prompt.after,
            forms=self.answer,
            also=self.also,
            factors=self.factors,
            version=self.version,
            protocol=self.protocol,
            data={**self.data, "original": problems},
            engine=engine,
            rewards=self.rewards,
        )

    @property
    def digest(self) -> str:
        """Of all that can change a number: 12 hexadecimal digits."""
        values = self.model_dump(mode="json", exclude={"summary", "published"})
        values["decoding"], values["answer"] = asdict(self.decoding), asdict(self.answer)
        if self.protocol == NOTHING:
            del values["protocol"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _beside(folder: Path, written: str, path: bool) -> str | None:
    """Where what is written leads beside a file in `folder`; None where it is meant from where the command is called.

    `path`: it can be nothing else. Then it leads there too when it is nowhere, and the error says which.
    """
    if written.startswith(("/", "~")) or not ((folder / written).exists() or (path and not Path(written).exists())):
        return None
    return str(folder / written)


def read_suite(path: Path) -> SuiteFile:
    """Reads a suite file. Raises `SuiteError`: the file, and a line for each thing that is wrong."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise SuiteError(f"{path}: holds no mapping; a suite has `version`, `summary`, `data` and more")
    file = parse(data, str(path))
    file._name = path.stem
    file.find_paths(path.parent)
    return file


def parse(data: Mapping[str, Any], where: str) -> SuiteFile:
    """The suite of a mapping. Raises `SuiteError`, whose lines begin with `where`."""
    try:
        return SuiteFile.model_validate(data)
    except ValidationError as error:
        raise SuiteError(
            "\n".join(f"{where}: {_line(dict(each))}" for each in error.errors(include_url=False))
        ) from None


def _line(error: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        model: Any = SuiteFile
        for part in error["loc"][:-1]:
            model = model.model_fields[str(part)].annotation
            model = next((each for each in get_args(model) if each is not type(None)), model)
        known = list(getattr(model, "model_fields", None) or model.__dataclass_fields__)
        hint = did_you_mean(str(error["loc"][-1]), known, f"; there are: {', '.join(known)}")
        return f"{place}: unknown key{hint}"
    if error["type"] == "missing":
        return f"{place}: is missing"
    if error["type"] == "value_error":
        return f"{place}: {error['ctx']['error']}"
    return f"{place}: {error['msg'][0].lower()}{error['msg'][1:]}, not {error['input']!r}"
