"""The text of a completion in parts, cut where its tokens are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise, takewhile


def parts(ids: Sequence[int], cuts: Sequence[int], decode: Callable[[list[Sequence[int]]], list[str]]) -> list[str]:
    """K + 1 texts, which joined are the whole: what stands before the first of K cuts, between two, and after the last.

    A cut at c comes behind the first c tokens. A letter whose bytes are on both sides of it belongs to the later part.
    """
    *begun, whole = decode([*(ids[:cut] for cut in cuts), ids])
    ends = [0]
    for text in begun:  # not of single parts: a tokenizer drops the space before the first word that it decodes
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, whole, strict=False)))
        ends.append(max(ends[-1], same))
    return [whole[start:end] for start, end in pairwise([*ends, len(whole)])]
