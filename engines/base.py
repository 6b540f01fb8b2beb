"""The protocol every generation back end speaks.

An engine answers two questions about a checkpoint: what does it write for a prompt (`generate`), and how likely
does it find a given text (`score`). Both take batches, stream their results and keep the order of their input, so
that a caller can append to a shard while the engine still works.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

_Result = TypeVar("_Result")

Message = Mapping[str, str]
"""One chat turn: `{"role": "system" | "user" | "assistant", "content": TEXT}`. Images travel beside the messages."""


def turns(text: str, system: str | None) -> list[Message]:
    """A user turn, behind the system prompt where there is one."""
    user: Message = {"role": "user", "content": text}
    return [user] if system is None else [{"role": "system", "content": system}, user]


def first_line(error: BaseException) -> str:
    """What an error says, in one line: that of a library may have many, or none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class EngineError(RuntimeError):
    """An engine cannot do what was asked, for a reason the user can act on. The message is one line."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How tokens are chosen. `temperature == 0` is greedy; then `top_p` and the seed have no effect.

    `stop`: strings that end a completion. They are looked for in the text without special tokens, and the text is cut
    before the one that is complete first.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be 0 (greedy) or more, not {self.temperature:g}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p:g}")
        if isinstance(self.stop, str) or not all(isinstance(each, str) for each in self.stop):
            raise ValueError(f"stop must be a list of strings, not {self.stop!r}")
        if "" in self.stop:
            raise ValueError("stop holds an empty string, which would end every completion at once; leave it out")
        object.__setattr__(self, "stop", tuple(self.stop))


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to be written.

    `image` is a path; it is put before the text of the first user turn. The completion is a function of the request
    and the weights alone: `seed` belongs to the request, so neither order nor batching changes a sample.
    """

    id: str
    messages: Sequence[Message]
    image: str | None = None
    decoding: Decoding = Decoding()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Generation:
    """What came back for the request of the same `id`.

    `finish` is `stop`, `length` (the token limit was reached) or `error` (then `error` says why). A token that ends a
    turn is none of `token_ids`; those of a stop string are, up to the one that completes it.
    """

    id: str
    text: str
    token_ids: tuple[int, ...]
    finish: str
    prompt_tokens: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A text whose likelihood is wanted: `target` is the assistant turn that would answer `messages`."""

    id: str
    messages: Sequence[Message]
    target: str
    image: str | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """Teacher-forced log-probabilities (nats) of the target's tokens, the end-of-turn token included, temperature 1."""

    id: str
    logprobs: tuple[float, ...]
    error: str | None = None

    @property
    def total(self) -> float:
        """log p(target | messages, image)."""
        return sum(self.logprobs)


@runtime_checkable
class Engine(Protocol):
    """A generation back end that holds one checkpoint."""

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        """One `Generation` per request, in the order of the requests, as soon as its batch is done."""
        ...

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[Score]:
        """One `Score` per request, in order."""
        ...

    def close(self) -> None:
        """Gives the memory back. The engine is unusable afterwards; closing twice is harmless."""
        ...


def in_order(found: Generator[tuple[int, _Result], None, None]) -> Iterator[_Result]:
    """(index, result) pairs that come as they get done → results by index from 0, each once all before it are there."""
    done: dict[int, _Result] = {}
    ahead = 0
    with closing(found):
        for index, result in found:
            done[index] = result
            while ahead in done:
                yield done.pop(ahead)
                ahead += 1
