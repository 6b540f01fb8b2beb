"""What a recurrent reasoner is: its sizes, its update rule, and how often that is applied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from transformers import PreTrainedConfig

Recurrence = Literal["sr2", "plain", "hrm", "trm"]
PAPER = {
    "sr2": {"layers": 1, "updates": 16, "segments": 16, "fast_updates": 0},
    "plain": {"layers": 8, "updates": 1, "segments": 1, "fast_updates": 0},
    "hrm": {"layers": 4, "updates": 2, "segments": 16, "fast_updates": 2},
    "trm": {"layers": 2, "updates": 3, "segments": 16, "fast_updates": 6},
}
"""What is not given, for each update rule: the numbers of its paper; those of `plain` are ours."""


class LatentReasonerConfig(PreTrainedConfig):  # type: ignore[misc]
    """The defaults are those of SR² on Sudoku-Extreme (arXiv 2510.08222 and its public code).

    Args:
        alphabet: the characters of tokens 1, 2, …; 0 is padding, which is never an answer.
        seq_len: the longest input, in tokens, without the prefix.
        recurrence: the update rule. `sr2`: one block, applied again and again. Peers: `plain` (a stack of blocks, one
            pass), `hrm` (arXiv 2506.21734) and `trm` (arXiv 2510.04871).
        layers: blocks in each module of the update rule. This, `updates`, `segments` and `fast_updates` are those of
            the rule's paper (`PAPER`) unless given.
        expansion: width of the gated feed-forward layer over `hidden_size`, before the factor 2/3 and rounding up.
        prefix_tokens: learnt tokens before the input. The public code has one, its "puzzle embedding".
        updates: M. For `sr2`, block calls between two alignments; for `hrm` and `trm`, updates of the slow state
            there. `plain` has one.
        segments: N, the number of alignments.
        fast_updates: updates of the fast state for each of the slow one (`hrm`, `trm`).
        reflect_segments: the segments in which the input is injected; `sr2` only. The paper's text says the first
            update alone in its first version and the first M in its second; the public code has the first M: (0,).
        reflect_updates: in those, the number of updates with the input; all unless given. 1 is the first version's.
        shared: False gives the updates with the input a block of their own (an ablation of the paper).
        z_init: `random`: drawn once, never trained (the code). `zero`: as the paper's text has it.
        loss: `stablemax` (the code) or `softmax` cross-entropy.
    """

    model_type = "latent_reasoner"
    layers: int
    updates: int
    segments: int
    fast_updates: int

    def __init__(
        self,
        alphabet: str = "_123456789",
        seq_len: int = 81,
        recurrence: Recurrence = "sr2",
        layers: int | None = None,
        hidden_size: int = 512,
        num_heads: int = 8,
        expansion: float = 4.0,
        rms_norm_eps: float = 1e-5,
        rope_theta: float = 10_000.0,
        prefix_tokens: int = 1,
        updates: int | None = None,
        segments: int | None = None,
        fast_updates: int | None = None,
        reflect_segments: Sequence[int] = (0,),
        reflect_updates: int | None = None,
        shared: bool = True,
        z_init: Literal["random", "zero"] = "random",
        loss: Literal["stablemax", "softmax"] = "stablemax",
        **others: Any,
    ) -> None:
        others.pop("vocab_size", None)  # follows from the alphabet
        super().__init__(**others)
        self.alphabet, self.seq_len = alphabet, seq_len
        self.vocab_size = len(alphabet) + 1
        if recurrence not in PAPER:
            raise ValueError(f"recurrence is one of {', '.join(PAPER)}, not {recurrence!r}")
        self.recurrence = recurrence
        given = {"layers": layers, "updates": updates, "segments": segments, "fast_updates": fast_updates}
        for name, value in given.items():
            setattr(self, name, PAPER[recurrence][name] if value is None else value)
        self.hidden_size, self.num_heads, self.expansion = hidden_size, num_heads, expansion
        self.rms_norm_eps, self.rope_theta = rms_norm_eps, rope_theta
        self.prefix_tokens = prefix_tokens
        self.reflect_segments, self.reflect_updates = list(reflect_segments), reflect_updates
        self.shared = shared
        self.z_init, self.loss = z_init, loss
        self._check()

    @property
    def inner_size(self) -> int:
        """Width of the feed-forward layer: 2/3 of `expansion · hidden_size`, up to a multiple of 256 (as the code)."""
        return -(-round(self.expansion * self.hidden_size * 2 / 3) // 256) * 256

    def _check(self) -> None:
        if not self.alphabet or len(set(self.alphabet)) < len(self.alphabet) or any(map(str.isspace, self.alphabet)):
            raise ValueError(f"alphabet {self.alphabet!r}: one or more characters, all different, no white space")
        for name in ("seq_len", "layers", "hidden_size", "num_heads", "updates", "segments"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is 1 or more, not {getattr(self, name)}")
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of 2 × num_heads; num_heads is {self.num_heads}"
            )
        if self.prefix_tokens < 0:
            raise ValueError(f"prefix_tokens is 0 or more, not {self.prefix_tokens}")
        beyond = [number for number in self.reflect_segments if not 0 <= number < self.segments]
        if beyond:
            raise ValueError(f"reflect_segments {beyond}: there are {self.segments} segments, numbered from 0")
        if self.reflect_updates is not None and not 1 <= self.reflect_updates <= self.updates:
            raise ValueError(f"reflect_updates is from 1 to updates ({self.updates}), not {self.reflect_updates}")
        if self.recurrence == "plain" and (self.updates, self.segments) != (1, 1):
            raise ValueError("recurrence plain passes once: updates and segments are 1")
