"""How a checkpoint's prompts begin, as tokens: the first thing to look at where scores that should agree do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engines.settings import EndpointSettings, EngineSettings, LatentSettings
from pipelines.checkpoints import Checkpoint

if TYPE_CHECKING:
    from engines.base import Message


def beginnings(
    found: Sequence[Checkpoint], messages: Sequence[Message], image: bool, engine: EngineSettings
) -> dict[str, Any]:
    """Checkpoint -> `Renderer.beginning` of one prompt, or the `reason` why there are no tokens to tell of."""
    return {each.name: _beginning(each.path, messages, image, engine) for each in found}


def prompts_of(checkpoint: str, asked: Sequence[tuple[Sequence[Message], bool]]) -> list[str]:
    """The text that a checkpoint gets to read for each (messages, whether there is an image), up to where it writes.

    Raises `EngineError` where it has no processor or no chat template.
    """
    from engines.checkpoint import load_processor
    from engines.rendering import Renderer

    renderer = Renderer(load_processor(checkpoint), None)
    return [renderer.prompt_text(messages, image) for messages, image in asked]


def warnings(prompts: Mapping[str, Any]) -> Iterator[str]:
    """One line for each checkpoint whose prompts begin as no model was trained on."""
    for label, each in prompts.items():
        if (each.get("bos_tokens") or 0) > 1:
            yield f"{label}: prompts begin with {each['bos_tokens']} BOS tokens in a row; mend its chat template"


def _beginning(path: str, messages: Sequence[Message], image: bool, engine: EngineSettings) -> dict[str, Any]:
    from engines.base import EngineError
    from engines.checkpoint import load_processor
    from engines.rendering import Renderer

    if isinstance(engine, LatentSettings):
        return {"reason": "a recurrent reasoner reads cells, not tokens"}
    if isinstance(engine, EndpointSettings):
        return {"reason": "the server makes the tokens"}
    try:
        processor = load_processor(path, trust_remote_code=engine.trust_remote_code)
    except EngineError:
        return {"reason": "no processor or tokenizer could be loaded"}  # whose message has a place in it
    return Renderer(processor, None).beginning(messages, image)
