"""One engine made of many: the same protocol, answered by workers that Ray runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.base import Generation, Request, Score, ScoreRequest, in_order
from engines.open import open_engine
from engines.replicated.pieces import piece_size, pieces
from engines.replicated.pool import Pool, Weights
from engines.replicated.worker import Open, packed
from engines.settings import ReplicableSettings

if TYPE_CHECKING:
    import torch

_AHEAD = 4
"""Pieces for each worker that a call has under way or done behind one that is late: so much memory it may take."""


class ReplicatedEngine:
    """`settings.replicas` workers, each with the whole model. Several threads may ask at once.

    A request is answered by the inner engine as if it were alone, so neither the number of workers nor which of them
    does what changes an answer. What a worker leaves undone is done by another; what cannot be done is an
    `EngineError` that says why.
    """

    def __init__(self, settings: ReplicableSettings, checkpoint: str, opener: Open = open_engine) -> None:
        """Opens `checkpoint` on every worker. Raises `EngineError` with the way out.

        `opener`: what opens an engine in a worker, found there by its name.
        """
        self._size = piece_size(settings)
        self._ahead = _AHEAD * settings.replicas
        self._pool = Pool(settings, _place(checkpoint), opener)
        self._names: frozenset[str] = frozenset()

    @property
    def workers(self) -> tuple[int, int]:
        """How many are ready or at work, of how many wanted."""
        return self._pool.workers

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        yield from in_order(self._done("generate", requests))

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[Score]:
        yield from in_order(self._done("score", requests))

    def update_weights(self, named: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Replaces weights on every worker, those that start later included (see `engines.weights.named_weights`)."""
        values = packed(named)
        names = frozenset(name for name, *_ in values)
        held = self._pool.weights
        # A worker that starts later needs all that were pushed, but for those that were pushed again.
        before = {} if names >= self._names else held.pushed
        self._names |= names
        number = max(held.pushed, default=-1) + 1
        self._pool.bring(Weights(held.checkpoint, held.opened, {**before, number: self._pool.share(values)}))

    def reopen(self, checkpoint: str) -> None:
        """Opens another checkpoint on the same workers."""
        self._names = frozenset()
        self._pool.bring(Weights(_place(checkpoint), self._pool.weights.opened + 1))

    def close(self) -> None:
        self._pool.close()

    def _done(self, method: str, requests: Sequence[Any]) -> Generator[tuple[int, Any], None, None]:
        """(index, result) of each request. The requests are read as far ahead as workers need them, and no further."""
        under_way: deque[tuple[list[int], Future[list[Any]]]] = deque()
        try:
            for piece in pieces(requests, self._size):
                under_way.append((piece, self._pool.submit(method, [requests[i] for i in piece])))
                while under_way and (len(under_way) >= self._ahead or under_way[0][1].done()):
                    yield from _results(*under_way.popleft())
            while under_way:
                yield from _results(*under_way.popleft())
        finally:
            for _, answer in under_way:
                answer.cancel()


def _results(piece: Sequence[int], answer: Future[list[Any]]) -> Iterator[tuple[int, Any]]:
    return zip(piece, answer.result(), strict=True)


def _place(checkpoint: str) -> str:
    """Absolute where it is a directory, as workers may begin elsewhere."""
    return str(Path(checkpoint).resolve()) if Path(checkpoint).exists() else checkpoint
