"""Where a completion states its answer. Applied to an answer that was found already, it changes nothing.

Every step takes time in proportion to the text, whatever the text: a search that backtracks could be made to hang.
"""

from __future__ import annotations

import re

_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_BRACE = re.compile(r"\\\\|\\[{}]|\\(?:boxed|fbox) ?\{|[{}]")


def final_answer(text: str) -> str | None:
    """The last answer of a completion, None where it states none.

    Reasoning up to the last `</think>` is left out, and a block that is never closed leaves nothing. Then the content
    of the last `<answer>` tag, inside it or without one that of the last `\\boxed{}`, else the whole text.
    """
    _, _, text = text.rpartition("</think>")
    if "<think>" in text:
        return None
    tagged = last_tagged(text)
    text = text if tagged is None else tagged
    boxed = last_boxed(text)
    return (text if boxed is None else boxed).strip() or None


def last_boxed(text: str) -> str | None:
    """The content of the last `\\boxed{…}` whose braces close."""
    open_at: list[int | None] = []
    last: tuple[int, int] | None = None
    for brace in _BRACE.finditer(text):
        sign = brace.group()
        if sign == "}":
            start = open_at.pop() if open_at else None
            if start is not None and (last is None or start > last[0]):
                last = start, brace.start()
        elif sign.endswith("{") and sign != "\\{":
            open_at.append(None if sign == "{" else brace.end())
    return None if last is None else text[last[0] : last[1]]


def last_tagged(text: str) -> str | None:
    """The content of the last `<answer>` tag that is closed."""
    opened: int | None = None
    last: str | None = None
    for tag in _TAG.finditer(text):
        if not tag[1]:
            opened = tag.end()
        elif opened is not None:
            last, opened = text[opened : tag.start()], None
    return last
