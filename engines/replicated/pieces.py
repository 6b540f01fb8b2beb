"""A call's requests, cut into pieces: what one worker does without a break, and does again if another was lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engines.base import Request, ScoreRequest
from engines.settings import ReplicableSettings, VllmSettings

_LOOK_AHEAD = 4096
"""Requests that are looked at together. More would find the questions on an image that lie further apart, at the price
of memory that grows with a call."""
_LARGEST = 4
"""Pieces' worth of requests on one image, or samples of one prompt, that stay together. So many on one image would
otherwise leave the other workers idle."""
_CONTINUOUS = 4
"""Times the sequences that vLLM decodes at once: towards the end of a piece fewer run, and this makes the end short."""


def piece_size(settings: ReplicableSettings) -> int:
    """Requests in a piece. It does not depend on the number of workers, so neither do batches and their rounding."""
    if isinstance(settings, VllmSettings):
        return _CONTINUOUS * settings.max_num_seqs
    return settings.batch_size


def pieces(requests: Sequence[Request | ScoreRequest], size: int) -> Iterator[list[int]]:
    """Indices of `requests`, each once, in pieces of about `size`.

    Questions on one image stay together, and so do samples of one prompt, so that their worker can share the work on
    it. Nothing beyond the pieces in hand and a few thousand indices is kept, however long the call is.
    """
    for start in range(0, len(requests), _LOOK_AHEAD):
        groups: dict[object, list[int]] = {}
        for i in range(start, min(start + _LOOK_AHEAD, len(requests))):
            groups.setdefault(_subject(requests[i]), []).append(i)
        piece: list[int] = []
        for group in groups.values():
            for first in range(0, len(group), _LARGEST * size):
                part = group[first : first + _LARGEST * size]
                if piece and len(piece) + len(part) > size:
                    yield piece
                    piece = []
                piece += part
        if piece:
            yield piece


def _subject(request: Request | ScoreRequest) -> object:
    """What requests share that belong together: their image, or their prompt where there is none."""
    return request.image or tuple(turn["content"] for turn in request.messages)
