"""The engine for masked-diffusion language models: the loop of `engines.denoising` around a stock class."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch

from engines.base import EngineError, Generation, Request, Score, ScoreRequest, in_order
from engines.checkpoint import end_tokens, in_eval_mode, load_model, load_processor
from engines.denoising import Canvases, Denoiser, completion
from engines.masked import check_reads_ahead, forward_of, mask_token_of, require_masked
from engines.rendering import Renderer
from engines.settings import DiffusionSettings


class DiffusionEngine:
    """Holds a masked-diffusion model and generates with it. `model` may be in training elsewhere: its mode is restored.

    Raises `EngineError` for a model of another kind, or one without a mask token.
    """

    def __init__(self, model: Any, processor: Any, settings: DiffusionSettings, checkpoint: str) -> None:
        require_masked(model.config, checkpoint)
        check_reads_ahead(model, checkpoint)
        self._model = model
        self._settings = settings
        self._renderer = Renderer(processor, model.config)
        tokenizer = self._renderer.tokenizer
        self._mask = mask_token_of(model.config, tokenizer, checkpoint)
        self._pad = tokenizer.pad_token_id
        self._ends = end_tokens(model, tokenizer)
        self._context = getattr(model.config, "max_position_embeddings", None)

    @classmethod
    def open(cls, settings: DiffusionSettings, checkpoint: str) -> DiffusionEngine:
        """Loads `checkpoint` onto the GPU where there is one. An adapter is merged: the outputs are the same."""
        model = load_model(checkpoint, dtype=settings.dtype, trust_remote_code=settings.trust_remote_code)
        if torch.cuda.is_available():
            model = model.to("cuda")
        return cls(
            model, load_processor(checkpoint, trust_remote_code=settings.trust_remote_code), settings, checkpoint
        )

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        """Streams in the order of `requests`; rows with the same decoding, of similar length, share a batch."""
        yield from in_order(self._done(requests))

    def _done(self, requests: Sequence[Request]) -> Generator[tuple[int, Generation], None, None]:
        if self._model is None:
            raise EngineError("the engine is closed")
        prompts = {i: self._renderer.prompt_ids(r.messages, False) for i, r in enumerate(requests) if r.image is None}
        usable = []
        for i, request in enumerate(requests):
            if error := self._unusable(request, len(prompts.get(i, ()))):
                yield i, Generation(request.id, "", (), "error", 0, error)
            else:
                usable.append(i)

        def decoding(i: int) -> tuple[int, float]:
            return requests[i].decoding.max_new_tokens, requests[i].decoding.temperature

        order = sorted(usable, key=lambda i: (decoding(i), len(prompts[i])))
        for (length, temperature), same in groupby(order, decoding):
            members = list(same)
            for start in range(0, len(members), self._settings.batch_size):
                batch = members[start : start + self._settings.batch_size]
                made = self._batch([prompts[i] for i in batch], [requests[i] for i in batch], length, temperature)
                yield from zip(batch, made, strict=True)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[Score]:
        """Raises `EngineError`: such a model has no likelihood that is read off one pass."""
        raise EngineError("a masked-diffusion model gives no teacher-forced likelihoods; measure with another model")

    def close(self) -> None:
        self._model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _unusable(self, request: Request, prompt: int) -> str | None:
        if request.image is not None:
            return "this masked-diffusion model reads no images"
        if request.decoding.top_p < 1:
            raise EngineError("the diffusion engine has no top_p; leave it at 1 and lower the temperature")
        tokens = prompt + request.decoding.max_new_tokens
        if self._context is not None and tokens > self._context:
            return f"prompt and completion take {tokens} tokens, the model's context is {self._context}"
        return None

    def _batch(
        self, prompts: list[list[int]], requests: Sequence[Request], length: int, temperature: float
    ) -> list[Generation]:
        denoiser = Denoiser(
            forward_of(self._model),
            self._settings.schedule(length),
            self._mask,
            self._pad,
            end_ids=self._ends,
            banned_ids=self._renderer.banned_ids,
            temperature=temperature,
            batch_size=self._settings.batch_size,
        )
        keys = [(request.seed, 0) for request in requests]
        with in_eval_mode(self._model):
            canvases = denoiser.run(Canvases.blank(prompts, length, self._mask, keys, str(self._model.device)))
        made = []
        for prompt, request, row in zip(prompts, requests, canvases.ids.tolist(), strict=True):
            ids, ended = completion(row, self._ends)
            # What lies behind a stop string has been made all the same: a canvas has one length.
            text, kept, stopped = self._renderer.cut(ids[:-1] if ended else ids, request.decoding.stop)
            finish = "stop" if ended or stopped else "length"
            made.append(Generation(request.id, text, kept, finish, len(prompt)))
        return made
