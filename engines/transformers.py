"""The default engine: transformers' own `generate`, batched by length, with one random stream per request."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, TypeVar

import torch
from PIL import Image
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from engines.base import Decoding, EngineError, Generation, Request, Score, ScoreRequest, in_order
from engines.checkpoint import end_tokens, in_eval_mode, load_model, load_processor
from engines.looped.loop import loop_of
from engines.masked import refuse_masked
from engines.rendering import Renderer, first_stop, open_image
from engines.settings import TransformersSettings
from engines.shared_prompts import can_share, shared_prompts

_Item = TypeVar("_Item", Request, ScoreRequest)
_CACHED_IMAGES = 1024


class SeededSampling(LogitsProcessor):  # type: ignore[misc]
    """Draws each row's token from its own random stream, by the Gumbel-max trick.

    argmax(log p + Gumbel noise) is a draw from p, so a greedy decoder behind this processor samples. A row's noise
    comes from a generator seeded by its request: what else is in the batch cannot change the sample.
    """

    def __init__(self, decodings: Sequence[Decoding], seeds: Sequence[int]) -> None:
        self._decodings = decodings
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores` [rows, vocabulary] → the same, with noise in the rows that sample."""
        noisy = scores.float()
        for row, (decoding, generator) in enumerate(zip(self._decodings, self._generators, strict=True)):
            if decoding.temperature == 0:
                continue
            logits = noisy[row] / decoding.temperature
            if decoding.top_p < 1:
                logits = _nucleus(logits, decoding.top_p)
            noise = torch.empty(logits.shape).exponential_(generator=generator).log_().neg_()
            noisy[row] = logits + noise.to(logits.device)
        return noisy


def _nucleus(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keeps the smallest set of tokens whose probability reaches `top_p` (arXiv 1904.09751)."""
    values, order = logits.sort(descending=True)
    before = values.softmax(-1).cumsum(-1) - values.softmax(-1)
    return logits.index_fill(0, order[before >= top_p], float("-inf"))


class StopStrings(StoppingCriteria):  # type: ignore[misc]
    """Tells which rows have written one of their stop strings; a matter of time alone, as completions are cut anyway.

    Of most completions only the last tokens are read, as many as hold the longest stop string at a byte a token, and a
    few that may be empty. So a step costs the same however long they are.
    """

    def __init__(self, stops: Sequence[Sequence[str]], prompt: int, tokenizer: Any) -> None:
        self._stops = stops
        self._prompt = prompt
        self._tokenizer = tokenizer
        self._tokens = 4 + max(len(each.encode(errors="surrogatepass")) for stop in stops for each in stop)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """`input_ids` [rows, prompt and completion so far] → [rows] of bool."""
        ends = input_ids[:, max(self._prompt, input_ids.shape[1] - self._tokens) :]
        # Some decoders write the first token of a text in another way than inside it, so a find is confirmed.
        done = [
            self._holds(end, stop) and self._holds(row[self._prompt :], stop)
            for end, row, stop in zip(ends, input_ids, self._stops, strict=True)
        ]
        return torch.tensor(done, device=input_ids.device)

    def _holds(self, ids: torch.Tensor, stop: Sequence[str]) -> bool:
        return bool(stop) and first_stop(self._tokenizer.decode(ids, skip_special_tokens=True), stop) is not None


class TransformersEngine:
    """Holds a model and generates or scores with it. `model` may be in training elsewhere: its mode is restored."""

    def __init__(self, model: Any, processor: Any, batch_size: int) -> None:
        self._model = model
        self._renderer = Renderer(processor, model.config)
        self._batch_size = batch_size
        self._context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._image = lru_cache(_CACHED_IMAGES)(open_image)
        self._eos = end_tokens(model, self._renderer.tokenizer)

    @classmethod
    def open(cls, settings: TransformersSettings, checkpoint: str) -> TransformersEngine:
        """Loads `checkpoint` onto the GPU where there is one. An adapter is merged: the outputs are the same."""
        model = load_model(checkpoint, dtype=settings.dtype, trust_remote_code=settings.trust_remote_code)
        refuse_masked(model.config, checkpoint)
        if settings.iterations is not None and (loop := loop_of(model)) is not None:
            loop.iterations = settings.iterations
        if torch.cuda.is_available():
            model = model.to("cuda")
        processor = load_processor(checkpoint, trust_remote_code=settings.trust_remote_code)
        return cls(model, processor, settings.batch_size)

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        yield from in_order(self._done(requests, self._generate_batch, lambda request: request.decoding.max_new_tokens))

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[Score]:
        yield from in_order(self._done(requests, self._score_batch, lambda request: len(request.target)))

    def update_weights(self, named: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Replaces weights by `named` (names as in the model; see `engines.weights.named_weights`).

        Raises `EngineError` for a name or a shape that the model does not have.
        """
        own = dict(self._model.named_parameters())
        with torch.no_grad():
            for name, tensor in named:
                if name not in own or own[name].shape != tensor.shape:
                    raise EngineError(f"{name}: the model has no weight of this name and shape {tuple(tensor.shape)}")
                own[name].copy_(tensor)

    def close(self) -> None:
        self._model = None
        self._image.cache_clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _done(self, requests: Sequence[_Item], work: Any, size: Any) -> Generator[tuple[int, Any], None, None]:
        """Runs `work` on batches of similar length: (index of a request, its result)."""
        if self._model is None:
            raise EngineError("the engine is closed")
        text = {i: self._renderer.prompt_text(r.messages, r.image is not None) for i, r in enumerate(requests)}
        prompts: dict[tuple[str, str | None], int] = {}
        number = {i: prompts.setdefault((text[i], requests[i].image), len(prompts)) for i in text}
        # Rows with and without an image cannot share a forward pass: processors want all or none. Rows of one prompt
        # stand side by side, so that few batches hold it.
        order = sorted(text, key=lambda i: (requests[i].image is None, len(text[i]) + size(requests[i]), number[i]))
        for batch in self._batches(order, requests):
            yield from zip(batch, work([requests[i] for i in batch], [text[i] for i in batch]), strict=True)

    def _batches(self, order: list[int], requests: Sequence[_Item]) -> Iterator[list[int]]:
        batch: list[int] = []
        for i in order:
            if batch and (
                len(batch) == self._batch_size or (requests[batch[0]].image is None) != (requests[i].image is None)
            ):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def _inputs(
        self, requests: Sequence[_Item], texts: Sequence[str], room: Sequence[int]
    ) -> tuple[dict[str, Any], list[int], dict[int, str]]:
        """Left-padded model inputs of the usable rows, their indices, and the errors of the others.

        A row is usable if its image can be read and its prompt leaves `room` tokens for what follows.
        """
        rows, images, errors = [], [], {}
        for i, request in enumerate(requests):
            if request.image is not None:
                try:
                    images.append([self._picture(request.image)])
                except EngineError as error:
                    errors[i] = str(error)
                    continue
            rows.append(i)
        if not rows:
            return {}, [], errors
        inputs = self._processed([texts[i] for i in rows], images)
        lengths = inputs["attention_mask"].sum(1).tolist()
        problems = [self._too_long(length + room[i]) for i, length in zip(rows, lengths, strict=True)]
        if any(problems):
            errors |= {i: problem for i, problem in zip(rows, problems, strict=True) if problem}
            images = [image for image, problem in zip(images, problems, strict=bool(images)) if not problem]
            rows = [i for i, problem in zip(rows, problems, strict=True) if not problem]
            if not rows:
                return {}, [], errors
            inputs = self._processed([texts[i] for i in rows], images)
        return {k: v.to(self._model.device) for k, v in inputs.items()}, rows, errors

    def _processed(self, texts: Sequence[str], images: Sequence[Sequence[Image.Image]]) -> Any:
        given: dict[str, Any] = {"text": list(texts)} | ({"images": list(images)} if images else {})
        return self._renderer.processor(
            **given, padding=True, padding_side="left", return_tensors="pt", add_special_tokens=False
        )

    def _picture(self, path: str) -> Image.Image:
        return self._image(path)

    def _too_long(self, tokens: int) -> str | None:
        if self._context is not None and tokens > self._context:
            return f"prompt and completion take {tokens} tokens, the model's context is {self._context}"
        return None

    @torch.inference_mode()
    def _generate_batch(self, requests: Sequence[Request], texts: Sequence[str]) -> list[Generation]:
        groups = self._groups(requests, texts)
        leads = [requests[group[0]] for group in groups]
        inputs, usable, errors = self._inputs(
            leads, [texts[group[0]] for group in groups], [lead.decoding.max_new_tokens for lead in leads]
        )
        out = {
            i: Generation(requests[i].id, "", (), "error", 0, error) for n, error in errors.items() for i in groups[n]
        }
        if not usable:
            return [out[i] for i in range(len(requests))]
        rows = [i for n in usable for i in groups[n]]
        prompts = [place for place, n in enumerate(usable) for _ in groups[n]]
        asked = [requests[i] for i in rows]
        width = inputs["input_ids"].shape[1]
        limit = max(request.decoding.max_new_tokens for request in asked)
        sampling = SeededSampling([r.decoding for r in asked], [r.seed for r in asked])
        stops = [r.decoding.stop for r in asked]
        stopping = [StopStrings(stops, width, self._renderer.tokenizer)] if any(stops) else []
        pad = self._renderer.tokenizer.pad_token_id
        config = GenerationConfig(
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=sorted(self._eos),
            pad_token_id=pad,
            suppress_tokens=list(self._renderer.banned_ids) or None,
        )
        defaults = self._model.generation_config
        # What a request leaves out, transformers would take from the checkpoint (Qwen2.5-VL: a repetition penalty).
        self._model.generation_config = GenerationConfig()
        try:
            with in_eval_mode(self._model), self._continued(inputs, prompts) as given:
                sequences = self._model.generate(
                    **given,
                    generation_config=config,
                    logits_processor=LogitsProcessorList([sampling]),
                    stopping_criteria=StoppingCriteriaList(stopping),
                )
        finally:
            self._model.generation_config = defaults
        lengths = inputs["attention_mask"].sum(1).tolist()
        for i, request, tokens, prompt in zip(rows, asked, sequences[:, width:].tolist(), prompts, strict=True):
            out[i] = self._completion(request, tokens[: request.decoding.max_new_tokens], lengths[prompt])
        return [out[i] for i in range(len(requests))]

    def _groups(self, requests: Sequence[Request], texts: Sequence[str]) -> list[list[int]]:
        """Rows that share a prompt and the room it needs, so that they differ in their noise at most."""
        if not can_share(self._model):
            return [[i] for i in range(len(requests))]
        groups: dict[tuple[str, str | None, int], list[int]] = {}
        for i, (request, text) in enumerate(zip(requests, texts, strict=True)):
            groups.setdefault((text, request.image, request.decoding.max_new_tokens), []).append(i)
        return list(groups.values())

    def _continued(
        self, inputs: dict[str, Any], prompts: Sequence[int]
    ) -> AbstractContextManager[Mapping[str, torch.Tensor]]:
        if len(prompts) == len(inputs["input_ids"]):
            return nullcontext(inputs)
        return shared_prompts(self._model, inputs, prompts)

    def _completion(self, request: Request, tokens: list[int], prompt_tokens: int) -> Generation:
        end = next((n for n, token in enumerate(tokens) if token in self._eos), None)
        text, ids, stopped = self._renderer.cut(tokens[:end], request.decoding.stop)
        finish = "length" if end is None and not stopped else "stop"
        return Generation(request.id, text, ids, finish, prompt_tokens)

    @torch.inference_mode()
    def _score_batch(self, requests: Sequence[ScoreRequest], texts: Sequence[str]) -> list[Score]:
        every = [self._renderer.target_ids(r.messages, r.target, r.image is not None) for r in requests]
        inputs, rows, errors = self._inputs(requests, texts, [len(target) for target in every])
        out = {i: Score(requests[i].id, (), error) for i, error in errors.items()}
        if not rows:
            return [out[i] for i in range(len(requests))]
        asked, targets = [requests[i] for i in rows], [every[i] for i in rows]
        longest = max(len(target) for target in targets)
        ids = torch.zeros(len(asked), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, target in enumerate(targets):
            ids[row, : len(target)] = torch.tensor(target)
            mask[row, : len(target)] = 1
        ids, mask = ids.to(self._model.device), mask.to(self._model.device)
        joined = inputs | {
            "input_ids": torch.cat([inputs["input_ids"], ids], 1),
            "attention_mask": torch.cat([inputs["attention_mask"], mask], 1),
        }
        for key in ("token_type_ids", "mm_token_type_ids"):  # text, as far as the model is told
            if key in inputs:
                joined[key] = torch.cat([inputs[key], torch.zeros_like(ids)], 1)
        with in_eval_mode(self._model):
            logits = self._model(**joined, logits_to_keep=longest + 1, use_cache=False).logits[:, :-1]
        logprobs = logits.float().log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1).tolist()
        for i, request, target, row in zip(rows, asked, targets, logprobs, strict=True):
            out[i] = Score(request.id, tuple(row[: len(target)]))
        return [out[i] for i in range(len(requests))]
