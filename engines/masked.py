"""What makes a checkpoint a masked-diffusion language model, and how it is told from an autoregressive one.

It is a stock Llama or Qwen class whose config says `is_causal: false` and names a `mask_token_id`.
"""

from __future__ import annotations

from typing import Any

import torch

from engines.base import EngineError

FLOOR = "5.10.4"
"""The first release of transformers seen to honour `is_causal: false`; earlier ones ignore it without a word."""


def is_masked(config: Any) -> bool:
    """Whether a config is that of a masked-diffusion model."""
    return getattr(config.get_text_config(), "is_causal", True) is False


def refuse_masked(config: Any, checkpoint: str) -> None:
    """Raises `EngineError` for a model that an autoregressive engine would run causally, and so wrong."""
    if is_masked(config):
        raise EngineError(f"{checkpoint}: a masked-diffusion model (is_causal: false); give engine.kind=diffusion")


def require_masked(config: Any, checkpoint: str) -> None:
    """Raises `EngineError` for an autoregressive model."""
    if not is_masked(config):
        raise EngineError(
            f"{checkpoint}: an autoregressive model; engine.kind=diffusion wants a masked-diffusion one "
            "(is_causal: false in its config.json)"
        )


def check_kind(config: Any, checkpoint: str, kind: str) -> None:
    """Raises `EngineError` for a model that an engine of that kind does not run. A server has its own."""
    if kind == "diffusion":
        require_masked(config, checkpoint)
    elif kind != "endpoint":
        refuse_masked(config, checkpoint)


def mask_token_of(config: Any, tokenizer: Any, checkpoint: str) -> int:
    """The id of the mask. Raises `EngineError` where neither config nor tokenizer has one that the model knows."""
    found = getattr(config, "mask_token_id", None)
    found = getattr(tokenizer, "mask_token_id", None) if found is None else found
    if found is None:
        raise EngineError(
            f"{checkpoint}: no mask token; give mask_token_id in config.json, or a mask_token in the tokenizer"
        )
    size = config.get_text_config().vocab_size
    if not 0 <= found < size:
        raise EngineError(f"{checkpoint}: mask_token_id {found} lies outside the vocabulary of {size} tokens")
    return int(found)


@torch.no_grad()
def check_reads_ahead(model: Any, checkpoint: str) -> None:
    """Raises `EngineError` where a later token does not change what is predicted at an earlier place."""
    ids = torch.arange(8, device=model.device)[None] % model.config.get_text_config().vocab_size
    other = ids.clone()
    other[0, -1] = 0
    first = [model(input_ids=each, use_cache=False).logits[0, 0] for each in (ids, other)]
    if torch.equal(*first):
        raise EngineError(
            f"{checkpoint}: the model does not look ahead, although its config says is_causal: false; "
            f"this class needs transformers {FLOOR} or later"
        )


def forward_of(model: Any) -> Any:
    """The model as the function that a `Denoiser` calls."""

    def forward(ids: torch.Tensor, attention: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = model(
            input_ids=ids, attention_mask=attention, logits_to_keep=positions, use_cache=False
        ).logits
        return logits

    return forward
