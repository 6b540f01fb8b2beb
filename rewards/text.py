"""What a completion says, whichever of TRL's two forms it comes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Completion: TypeAlias = str | Sequence[Mapping[str, Any]]
"""A plain string, or a conversation whose last turn is the answer."""


def text_of(completion: Completion) -> str:
    """The text of a completion: itself, or the content of its last turn (text parts joined).

    Raises:
        TypeError: the completion has neither form.
    """
    if isinstance(completion, str):
        return completion
    if not completion or not isinstance(completion[-1], Mapping) or "content" not in completion[-1]:
        raise TypeError(f"a completion is a string or a list of turns with `content`, not {completion!r}")
    content = completion[-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(str(part["text"]) for part in content if part.get("type") == "text")
