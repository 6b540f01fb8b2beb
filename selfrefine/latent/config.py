"""The configuration of a recurrent reasoner, as it is saved beside its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from transformers import PreTrainedConfig

from engines.base import EngineError, first_line
from selfrefine.latent.spec import ReasonerSpec, check_alphabet


class LatentReasonerConfig(PreTrainedConfig):  # type: ignore[misc]
    """`ReasonerSpec`, by the names of its fields, and what the boards are made of.

    Args:
        alphabet: the characters of tokens 1, 2, …; 0 is padding, which is never an answer.
        seq_len: the longest input, in tokens, without the prefix.

    Raises `ValueError`, one line.
    """

    model_type = "latent_reasoner"

    # The names that transformers uses are of `PreTrainedConfig`; those of the spec:
    recurrence: str
    layers: int
    hidden_size: int
    heads: int
    positions: Literal["rotary", "learned"]
    rope_theta: float
    rms_norm_eps: float
    prefix_tokens: int
    updates: int
    segments: int
    fast_updates: int
    reflect_segments: Sequence[int]
    reflect_updates: int | None
    shared: bool
    z_init: str
    loss: Literal["stablemax", "softmax"]

    def __init__(self, alphabet: str = "_123456789", seq_len: int = 81, **values: Any) -> None:
        given = {name: values.pop(name) for name in ReasonerSpec.model_fields if name in values}
        values.pop("vocab_size", None)  # follows from the alphabet
        super().__init__(**values)
        check_alphabet(alphabet)
        if seq_len < 1:
            raise ValueError(f"seq_len is 1 or more, not {seq_len}")
        self.alphabet, self.seq_len, self.vocab_size = alphabet, seq_len, len(alphabet) + 1
        try:
            spec = ReasonerSpec(**given)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = "".join(f"{key}: " for key in first["loc"])
            raise ValueError(f"{place}{first['msg'].removeprefix('Value error, ')}") from None
        for name, value in spec.model_dump(mode="json").items():
            setattr(self, name, value)
        self.inner_size = spec.inner_size


def read_config(checkpoint: str) -> LatentReasonerConfig:
    """Of a reasoner's directory. Raises `EngineError` for values that cannot be."""
    try:
        config: LatentReasonerConfig = LatentReasonerConfig.from_pretrained(checkpoint)
    except (TypeError, ValueError) as error:
        raise EngineError(
            f"{Path(checkpoint) / 'config.json'}: {first_line(error)}; copy or save the checkpoint again"
        ) from None
    return config
