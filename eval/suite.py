"""A suite: problems + prompt + decoding + reward that together give one number."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engines.base import Decoding, Message, turns
from eval import extract
from eval.extract import Forms
from eval.protocol import NOTHING, Protocol
from rewards import registry
from rewards.contract import Reward
from tasks.problem import Problem


class CompareError(ValueError):
    """Two sets of trials do not answer the same question. The message is one line that names what differs."""


class SettingsDiffer(CompareError):
    """Two sets of trials were made under other settings. `groups`: those that may be allowed to differ; none where some
    other setting differs as well."""

    def __init__(self, a: str, b: str, keys: Sequence[str]) -> None:
        super().__init__(f"`{a}` and `{b}` were evaluated differently: {', '.join(keys)} differ")
        groups = dict.fromkeys(key.partition(".")[0] for key in keys)
        self.groups = tuple(groups) if groups.keys() <= {"engine", "prompt", "decoding"} else ()


@dataclass(frozen=True, slots=True)
class Suite:
    """What two scores must have in common to be compared.

    `data` and `engine` describe where the problems come from and what generates, in JSON values; the suite does not
    look into them. `system` is the system prompt (None: none is sent); `prefix` and `suffix` are put around each
    question. `also` are further rewards that are shown and decide nothing; `factors` are columns of the problems that
    scores are broken down by, beside their kind. `version` is that of a suite file. `protocol` are further numbers that
    the suite is reported by. `rewards` leads those that are files to where they are, which makes no other suite.
    """

    name: str
    reward: str
    decoding: Decoding = field(default_factory=Decoding)
    system: str | None = None
    prefix: str = ""
    suffix: str = ""
    forms: Forms = field(default_factory=Forms)
    also: tuple[str, ...] = ()
    factors: tuple[str, ...] = ()
    version: int | None = None
    protocol: Protocol = NOTHING
    data: Mapping[str, Any] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)
    rewards: Mapping[str, str] = field(default_factory=dict, compare=False)

    def settings(self, problems: Sequence[Problem]) -> dict[str, Any]:
        """All that determines a score but the checkpoint, as JSON values. Two scores compare iff these are equal."""
        values = {
            "name": self.name,
            "version": self.version,
            "data": {**self.data, "problems": len(problems), "sha": problems_sha(problems)},
            "prompt": {"system": self.system, "prefix": self.prefix, "suffix": self.suffix},
            "decoding": asdict(self.decoding),
            "extraction": {**asdict(self.forms), "version": extract.VERSION},
            "reward": {"name": self.reward, "version": self._version(self.reward)},
            "also": {name: self._version(name) for name in self.also},
            "engine": dict(self.engine),
        }
        if self.protocol != NOTHING:
            values["protocol"] = self.protocol.model_dump(mode="json", exclude_defaults=True)
        kept: dict[str, Any] = json.loads(json.dumps(values))  # as they will be read back: tuples are lists there
        return kept

    def load(self, reward: str) -> Reward:
        """One of its rewards. Raises `RewardError`."""
        return registry.load(self.rewards.get(reward, reward))

    def _version(self, reward: str) -> int | str:
        return registry.entry(self.rewards.get(reward, reward)).version

    def messages(self, problem: Problem) -> list[Message]:
        """The turns that put a problem to the model."""
        return turns(f"{self.prefix}{problem.question}{self.suffix}", self.system)


def digest(settings: Mapping[str, Any]) -> str:
    """The name of a suite's settings: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def problems_sha(problems: Sequence[Problem]) -> str:
    """Of all that the problems are, their images' contents included, in order."""
    whole = hashlib.sha256()
    for problem in problems:
        image = None if problem.image is None else file_sha(problem.image)
        values = [problem.id, problem.question, problem.answer, problem.cluster, problem.kind, image]
        more = json.dumps(problem.columns, sort_keys=True, default=str) if problem.columns else ""
        whole.update(f"{json.dumps(values)}{more}\n".encode())
    return whole.hexdigest()[:16]


@functools.lru_cache(maxsize=1 << 14)
def file_sha(path: str) -> str | None:
    """Of a file's content; None where it cannot be read, which the engine says of the trial."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return None


def differing_keys(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys at which two settings differ."""
    keys: list[str] = []
    for key in sorted(a.keys() | b.keys()):
        left, right = a.get(key), b.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            keys += differing_keys(left, right, f"{prefix}{key}.")
        elif left != right:
            keys.append(prefix + key)
    return keys
