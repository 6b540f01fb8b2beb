"""The engine for recurrent reasoners: a grid in, the same grid with its cells filled in out."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any

import torch

from engines.base import EngineError, Generation, Request, Score, ScoreRequest, in_order
from engines.settings import LatentSettings
from selfrefine.latent.grids import GridError, decode, read_board
from selfrefine.latent.model import load_answering
from selfrefine.latent.rules import any_answer, sudoku_rule
from selfrefine.latent.solve import Rule, solve


class LatentEngine:
    """Holds a reasoner and answers with it. A request is its last user turn: the grid, in the characters of training.

    Raises `EngineError` for a checkpoint of another kind, or boards that `early_stop` is not for.
    """

    def __init__(self, settings: LatentSettings, checkpoint: str) -> None:
        self._settings = settings
        self._model: Any = load_answering(checkpoint)
        try:
            self._rule = _rule(settings, self._model)
        except GridError as error:
            raise EngineError(f"engine.early_stop: {error}") from None

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        """Streams in the order of `requests`. Nothing is drawn: seeds do not count.

        A token of the completion is a cell. `finish` is `error` for a text that is no board as in training.
        """
        yield from in_order(self._done(requests))

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[Score]:
        """Raises `EngineError`: the cells of an answer are chosen together, none after another."""
        raise EngineError("a recurrent reasoner gives no teacher-forced likelihoods; measure with another model")

    def close(self) -> None:
        self._model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _done(self, requests: Sequence[Request]) -> Generator[tuple[int, Generation], None, None]:
        if self._model is None:
            raise EngineError("the engine is closed")
        if any(request.decoding.stop for request in requests):
            raise EngineError("a recurrent reasoner fills in a whole grid and knows no stop; leave decoding.stop out")
        boards = {}
        for i, request in enumerate(requests):
            try:
                boards[i] = self._board(request)
            except GridError as error:
                yield i, Generation(request.id, "", (), "error", 0, str(error))
        size, members = self._settings.batch_size, list(boards)
        for start in range(0, len(members), size):
            batch = members[start : start + size]
            ids = torch.stack([boards[i] for i in batch]).to(self._model.device)
            answers = solve(self._model, ids, self._settings.segments, self._rule).answers[-1].tolist()
            for i, tokens in zip(batch, answers, strict=True):
                text = decode(tokens, requests[i].messages[-1]["content"], self._model.config)
                yield i, Generation(requests[i].id, text, tuple(tokens), "stop", len(tokens))

    def _board(self, request: Request) -> torch.Tensor:
        if len(request.messages) > 1:
            raise GridError("a recurrent reasoner reads one grid and nothing beside it; leave the system prompt out")
        return torch.from_numpy(read_board(request.messages[0]["content"], request.image, self._model.config))


def _rule(settings: LatentSettings, model: Any) -> Rule | None:
    if settings.early_stop == "sudoku":
        return sudoku_rule(model.config)
    return any_answer if settings.early_stop == "fixed_point" else None
