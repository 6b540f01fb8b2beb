"""A trial: one completion for one problem, with its verdict. One JSON line each, from us or from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Outcome = Literal["correct", "wrong", "unparsed", "truncated", "ungraded"]
OUTCOMES: tuple[Outcome, ...] = ("correct", "wrong", "unparsed", "truncated", "ungraded")
"""`unparsed` (finished, but no answer in an accepted form) and `truncated` (the token limit came before the answer was
complete) are failures of the model: they count as 0 and are shown on their own lines. `ungraded` is a failure of ours
and is never 0."""


class TrialError(ValueError):
    """A file of trials cannot be read. The message is one line that names the file and the line."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Extract(_Record):
    """The answer text found by each extraction (`eval.extract`), None where there was none."""

    strict: str | None = None
    flexible: str | None = None


class Rewards(_Record):
    """The reward of each extracted answer. None: could not be scored."""

    strict: float | None = None
    flexible: float | None = None
    flexible_state: str | None = None
    """Why an answer that was found has no flexible score: a failure of ours, as `Trial.reason` says of the strict."""


class Check(_Record):
    """One named test inside a verdict; `phase` is what it belongs to, `na` that it does not apply to this trial."""

    name: str
    phase: str
    verdict: Literal["pass", "fail", "na"]


class Score(_Record):
    """What a further reward of the suite gave. `state`: why there is no value, or why it is 0 unread (`unparsed`)."""

    value: float | None = None
    state: str | None = None


class Trial(_Record):
    """One line of `trials.jsonl`. Fields that are not declared here are kept and written back."""

    model_config = ConfigDict(extra="allow")

    label: str
    """The checkpoint, by the name that reports give it."""
    suite: str
    suite_digest: str
    problem_id: str
    cluster: str = Field(min_length=1)
    """What is drawn when an interval is made; the problem's own id where problems are independent."""
    sample: int = Field(ge=0)
    seed: int
    prompt_sha: str
    """SHA-256 of the messages and the image file."""
    prompt: tuple[dict[str, str], ...] = ()
    """The turns, each with `role` and `content`, before the chat template."""
    image: str | None = None
    gold: str | None = None
    prompt_tokens: int | None = None
    completion: str
    finish: Literal["stop", "length", "error"]
    completion_tokens: int | None = None
    extract: Extract
    reward: Rewards
    outcome: Outcome
    """By the suite's primary extraction, which is the strict one."""
    reason: str | None = None
    """Why a trial is `ungraded`."""
    scores: dict[str, Score] = Field(default_factory=dict)
    """Further rewards of the suite, by name; `reward` is the one that decides."""
    checks: tuple[Check, ...] = ()
    factors: dict[str, str] = Field(default_factory=dict)
    """What scores are broken down by: `kind` is the question's type."""
    seconds: float | None = Field(None, exclude=True)
    """Of generation, its batch's time shared out evenly. Not written: the same trial made twice is the same line."""

    @property
    def score(self) -> float | None:
        """The strict score: 1 for `correct`, 0 for a failure of the model, None for one of ours."""
        return None if self.outcome == "ungraded" else float(self.outcome == "correct")

    @property
    def answer(self) -> str | None:
        """The strictly extracted answer, where the trial has one that counts."""
        return None if self.outcome in ("unparsed", "truncated") else self.extract.strict

    @property
    def flexible_score(self) -> float | None:
        """The score under flexible extraction. An unfinished or answerless completion is 0 there too."""
        if self.outcome == "ungraded" or self.reward.flexible_state is not None:
            return None
        return float((self.reward.flexible or 0.0) >= 1.0)


def dump(trial: Trial) -> str:
    """One line of strict JSON, without the newline."""
    return trial.model_dump_json(exclude_none=False)


def read(path: Path) -> Iterator[Trial]:
    """The trials of a file, in order.

    Raises:
        TrialError: a line is no JSON, or a required field is missing or of the wrong type; names the line.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield Trial.model_validate_json(line)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                field = ".".join(str(part) for part in first["loc"])
                where = f"{path}, line {number}" + (f", field `{field}`" if field else "")
                raise TrialError(f"{where}: {first['msg']}") from error


def count_outcomes(trials: Iterable[Trial]) -> dict[str, int]:
    """How many trials ended how; every outcome is a key."""
    counts: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
    for trial in trials:
        counts[trial.outcome] += 1
    return counts
