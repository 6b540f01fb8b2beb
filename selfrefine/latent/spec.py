"""What a recurrent reasoner is: its sizes, its update rule, and how often that is applied. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, model_validator

Recurrence = Literal["sr2", "plain", "hrm", "trm"]
PAPER: dict[str, dict[str, int]] = {
    "sr2": {"layers": 1, "updates": 16, "segments": 16, "fast_updates": 0},
    "plain": {"layers": 8, "updates": 1, "segments": 1, "fast_updates": 0},
    "hrm": {"layers": 4, "updates": 2, "segments": 16, "fast_updates": 2},
    "trm": {"layers": 2, "updates": 3, "segments": 16, "fast_updates": 6},
}
"""What is not given, for each update rule: the numbers of its paper; those of `plain` are ours."""
_OF_PAPER = "; that of the rule's paper unless given"


def check_alphabet(alphabet: str) -> None:
    """Raises `ValueError` for what cannot be the characters of cells."""
    if not alphabet or len(set(alphabet)) < len(alphabet) or any(map(str.isspace, alphabet)):
        raise ValueError(f"alphabet {alphabet!r}: one or more characters, all different, no white space")


class ReasonerSpec(BaseModel):
    """The defaults are those of SR² on Sudoku-Extreme (arXiv 2510.08222 and its public code)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recurrence: Recurrence = Field(
        "sr2",
        description="the update rule; sr2: one block again and again. Peers: plain (a stack of blocks, one pass), hrm "
        "(arXiv 2506.21734), trm (arXiv 2510.04871), both without halting",
    )
    layers: int = Field(1, ge=1, description="transformer blocks in each module of the rule" + _OF_PAPER)
    hidden_size: int = Field(512, ge=2, description="width of the latent estimate at each cell")
    heads: int = Field(8, ge=1, description="attention heads")
    expansion: float = Field(
        4.0, gt=0, description="width of the gated layer over `hidden_size`, before a factor of 2/3 and rounding up"
    )
    positions: Literal["rotary", "learned"] = Field(
        "rotary",
        description="rotary: turned in attention; learned: a table that is added to the embedded input, and so is read "
        "where that is (an option of the public code)",
    )
    rope_theta: float = Field(10_000.0, gt=0, description="base of the rotary positions")
    rms_norm_eps: float = Field(1e-5, gt=0, description="added to mean squares")
    prefix_tokens: int = Field(1, ge=0, description="learnt tokens before the board; the public code has one")
    updates: int = Field(
        16, ge=1, description="M, block calls between two alignments; hrm, trm: of the slow state" + _OF_PAPER
    )
    segments: int = Field(16, ge=1, description="N, the number of alignments" + _OF_PAPER)
    fast_updates: int = Field(
        0, ge=0, description="hrm, trm: updates of the fast state for each of the slow one" + _OF_PAPER
    )
    reflect_segments: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (0,),
        description="sr2: the segments in which the input is injected; the first alone in the public code",
    )
    reflect_updates: int | None = Field(
        None,
        ge=1,
        description="sr2: in those, the updates with the input; all unless given. The paper's first version has 1",
    )
    shared: bool = Field(True, description="sr2: false gives the updates with the input a block of their own")
    z_init: Literal["random", "zero"] = Field(
        "random", description="the first estimate: drawn once and never trained (the code), or zero (the paper's text)"
    )
    loss: Literal["stablemax", "softmax"] = Field(
        "stablemax",
        description="cross-entropy of which distribution; stablemax in the public code",
    )

    @model_validator(mode="wrap")
    @classmethod
    def _as_in_the_paper(cls, values: Any, handler: ModelWrapValidatorHandler[ReasonerSpec]) -> ReasonerSpec:
        if not isinstance(values, dict):
            return handler(values)
        spec = handler({**PAPER.get(values.get("recurrence", "sr2"), {}), **values})
        # Defaults like any other: where an arm changes the rule, those of the new one hold.
        spec.model_fields_set.intersection_update(values)
        return spec

    @model_validator(mode="after")
    def _fitting(self) -> ReasonerSpec:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of 2 × heads; heads is {self.heads}")
        beyond = [number for number in self.reflect_segments if number >= self.segments]
        if beyond and self.recurrence == "sr2":
            raise ValueError(f"reflect_segments {beyond}: there are {self.segments} segments, numbered from 0")
        if self.reflect_updates is not None and self.reflect_updates > self.updates:
            raise ValueError(f"reflect_updates is from 1 to updates ({self.updates}), not {self.reflect_updates}")
        if self.recurrence == "plain" and (self.updates, self.segments) != (1, 1):
            raise ValueError("recurrence plain passes once: updates and segments are 1")
        if self.recurrence in ("hrm", "trm") and self.fast_updates < 1:
            raise ValueError(f"recurrence {self.recurrence} has a fast state: fast_updates is 1 or more")
        return self

    @property
    def inner_size(self) -> int:
        """Width of the gated layer: 2/3 of `expansion · hidden_size`, up to a multiple of 256 (as the code)."""
        return -(-round(self.expansion * self.hidden_size * 2 / 3) // 256) * 256
