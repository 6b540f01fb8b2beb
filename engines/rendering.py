"""How messages become tokens: the one place, so that every engine puts the same prompt to a checkpoint."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from PIL import Image, ImageOps

from engines.base import EngineError, Message, first_line

UNREADABLE = "not a readable image"
"""Is in the error of a request whose image cannot be read."""
FIRST_TOKENS = 64
"""Of a prompt, that are kept in records."""
_IMAGE_TOKEN_IDS = (
    "image_token_id",
    "image_token_index",
    "video_token_id",
    "vision_start_token_id",
    "vision_end_token_id",
)


def in_parts(messages: Sequence[Message], image: bool) -> list[dict[str, Any]]:
    """The messages in Hugging Face's multimodal form; an image goes before the text of the first user turn."""
    turns: list[dict[str, Any]] = []
    placed = not image
    for message in messages:
        content: list[dict[str, str]] = [{"type": "text", "text": message["content"]}]
        if message["role"] == "user" and not placed:
            content.insert(0, {"type": "image"})
            placed = True
        turns.append({"role": message["role"], "content": content})
    if not placed:
        raise EngineError("an image needs a user turn to stand in, and these messages have none")
    return turns


def open_image(path: str) -> Image.Image:
    """The image as RGB, as a person would see it: upright, 16 bits a channel scaled, transparent areas white.

    Raises `EngineError` where the file cannot be read as an image.
    """
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I;16"):
                image = image.convert("I").point(lambda value: value / 257).convert("L")
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                layered = image.convert("RGBA")
                page = Image.new("RGBA", layered.size, "white")
                return Image.alpha_composite(page, layered).convert("RGB")
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise EngineError(f"{Path(path).name}: {UNREADABLE} ({error})") from error


def banned_ids(model_config: Any) -> tuple[int, ...]:
    """Tokens that no completion may hold.

    A model that writes an image placeholder asks for features that do not exist (field reports: R1-V#91).
    """
    ids = {getattr(model_config, name, None) for name in _IMAGE_TOKEN_IDS}
    return tuple(sorted(i for i in ids if i is not None))


class Renderer:
    """Turns messages into token ids with a checkpoint's own processor or tokenizer and chat template."""

    def __init__(self, processor: Any, model_config: Any) -> None:
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        if self.tokenizer.chat_template is None and getattr(processor, "chat_template", None) is None:
            raise EngineError("the checkpoint has no chat template; add chat_template.jinja to its directory")
        self.banned_ids = banned_ids(model_config)
        # Templates of multimodal processors may read parts alone, and leave out a message that is plain text.
        self._in_parts = hasattr(processor, "image_processor")
        self._eos = self.tokenizer.eos_token
        empty = self.tokenizer("")["input_ids"]
        self._bos = self.tokenizer.bos_token if self.tokenizer.bos_token_id in empty[:1] else ""

    def prompt_text(self, messages: Sequence[Message], image: bool) -> str:
        """The prompt up to where the assistant begins to write; an image stands as one unexpanded placeholder."""
        text = self._apply(messages, image, add_generation_prompt=True)
        # What the tokenizer begins a text with belongs to the prompt; some templates write it, others leave it to it.
        return text if text.startswith(self._bos) else self._bos + text

    def target_text(self, messages: Sequence[Message], target: str, image: bool) -> str:
        """What the assistant would have written to answer `target`: its text and the end of its turn."""
        whole = self._apply([*messages, {"role": "assistant", "content": target}], image)
        prompt = self._apply(messages, image, add_generation_prompt=True)
        if not whole.startswith(prompt):
            raise EngineError(
                "the chat template rewrites earlier turns once the assistant has answered; it cannot be scored"
            )
        text = whole[len(prompt) :]
        # Templates put white space after the end of a turn; no model is asked to write it. Some put no end at all.
        head, end, _ = text.rpartition(self._eos)
        return head + end if end else text.rstrip() + self._eos

    def _apply(self, messages: Sequence[Message], image: bool, **options: bool) -> str:
        plain = not image and not self._in_parts
        turns = [dict(message) for message in messages] if plain else in_parts(messages, image)
        try:
            return str(self.processor.apply_chat_template(turns, tokenize=False, **options))
        except TemplateError as error:
            roles = [message["role"] for message in messages]
            way_out = "put the system prompt into the question" if "system" in roles else "ask in another form"
            raise EngineError(
                f"the checkpoint's chat template refuses turns of {', '.join(roles)} ({first_line(error)}); "
                f"{way_out}, or mend its chat_template.jinja"
            ) from error

    def target_ids(self, messages: Sequence[Message], target: str, image: bool) -> list[int]:
        """Token ids of `target_text`, tokenised on its own, as generation would have produced it."""
        return list(self.tokenizer(self.target_text(messages, target, image), add_special_tokens=False)["input_ids"])

    def prompt_ids(self, messages: Sequence[Message], image: bool) -> list[int]:
        """Token ids of the prompt with one unexpanded placeholder per image."""
        return list(self.tokenizer(self.prompt_text(messages, image), add_special_tokens=False)["input_ids"])

    def beginning(self, messages: Sequence[Message], image: bool) -> dict[str, Any]:
        """How a prompt begins, in JSON values, for records.

        `bos_token` and how many `bos_tokens` it begins with, its number of `tokens` (an image counts as the placeholder
        that it has not been expanded from), the first ones' `first_ids` and `first_text`, and the `pixels` that the
        image processor makes of an image, under its own names; None for a text model.
        """
        ids = self.prompt_ids(messages, image)
        bos = self.tokenizer.bos_token_id
        return {
            "bos_token": self.tokenizer.bos_token,
            "bos_tokens": 0 if bos is None else next((n for n, each in enumerate(ids) if each != bos), len(ids)),
            "tokens": len(ids),
            "first_ids": ids[:FIRST_TOKENS],
            "first_text": str(self.tokenizer.decode(ids[:FIRST_TOKENS], skip_special_tokens=False)),
            "pixels": _pixels(getattr(self.processor, "image_processor", None)),
        }

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a completion, without special tokens."""
        return self._text(token_ids).strip()

    def cut(self, token_ids: Sequence[int], stop: Sequence[str]) -> tuple[str, tuple[int, ...], bool]:
        """A completion up to its first stop string: the text before it, the tokens that hold it, whether there is one.

        A function of the tokens alone, whichever engine made them and however far it went on behind the stop.
        """
        text = self._text(token_ids)
        if first_stop(text, stop) is None:
            return text.strip(), tuple(token_ids), False
        # As one token after the other would have completed it.
        fewest = bisect_left(
            range(len(token_ids)), True, key=lambda n: first_stop(self._text(token_ids[:n]), stop) is not None
        )
        text = self._text(token_ids[:fewest])
        return text[: first_stop(text, stop)].strip(), tuple(token_ids[:fewest]), True

    def _text(self, token_ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))


def _pixels(image_processor: Any) -> dict[str, Any] | None:
    if image_processor is None:
        return None
    known = {name: getattr(image_processor, name, None) for name in ("size", "crop_size", "min_pixels", "max_pixels")}
    return {
        name: {key: each for key, each in dict(value).items() if each is not None} if name.endswith("size") else value
        for name, value in known.items()
        if value is not None
    }


def first_stop(text: str, stop: Sequence[str]) -> int | None:
    """Where the stop string begins that is complete first; of several that end together, the one named first."""
    found = [(place + len(each), place) for each in stop if (place := text.find(each)) >= 0]
    return min(found, key=lambda ends: ends[0])[1] if found else None
