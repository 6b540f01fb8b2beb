"""A client for a server that speaks OpenAI's chat protocol, made for a running `vllm serve`."""

from __future__ import annotations

import base64
import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import httpx

from engines.base import EngineError, Generation, Message, Request, Score, ScoreRequest
from engines.checkpoint import base_of, is_adapter, load_processor
from engines.looped.config import without_loop
from engines.rendering import Renderer, first_stop, in_parts, open_image
from engines.settings import EndpointSettings

_Item = TypeVar("_Item", Request, ScoreRequest)
_Result = TypeVar("_Result", Generation, Score)
_CACHED_IMAGES = 256
_BUSY = (429, 502, 503, 504)
_PAUSES = (1.0, 4.0, 16.0)  # seconds before a busy server is asked again


class EndpointEngine:
    """Sends requests to `settings.url`, several at once, and yields the answers in order.

    The server holds the weights. So that no other model answers in the checkpoint's place, the served model has to be
    the checkpoint by name, unless `settings.model` says which one is meant.
    """

    def __init__(self, settings: EndpointSettings, checkpoint: str) -> None:
        import transformers

        checkpoint = without_loop(checkpoint, "a server")
        url = settings.url.rstrip("/")
        key = _key(settings)
        self._settings = settings
        self._client: httpx.Client | None = httpx.Client(
            base_url=url if url.endswith("/v1") else f"{url}/v1",
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=settings.timeout,
            limits=httpx.Limits(max_connections=settings.concurrency),
        )
        try:
            self._model, self._is_vllm = self._served(checkpoint)
            source = base_of(Path(checkpoint)) if is_adapter(Path(checkpoint)) else checkpoint
            config = transformers.AutoConfig.from_pretrained(source)
            self._renderer = Renderer(load_processor(checkpoint), config)
        except BaseException:
            self.close()
            raise
        self._image_url = lru_cache(_CACHED_IMAGES)(_image_url)

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        yield from self._stream(requests, self._generate, lambda r, error: Generation(r.id, "", (), "error", 0, error))

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[Score]:
        """Needs a server that returns `prompt_logprobs`, as vLLM does; raises `EngineError` for any other."""
        yield from self._stream(requests, self._score, lambda r, error: Score(r.id, (), error))

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _generate(self, request: Request) -> Generation:
        decoding = request.decoding
        body = {
            "messages": self._messages(request.messages, request.image),
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "seed": request.seed,
            "logit_bias": {str(token): -100 for token in self._renderer.banned_ids},
        }
        if decoding.stop:
            body["stop"] = list(decoding.stop)
        if self._is_vllm:
            # `vllm serve` takes what is not said from the model's generation_config.json.
            body |= {"return_token_ids": True, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
        answer = self._ask(body)
        choice = answer["choices"][0]
        finish = str(choice["finish_reason"])
        if finish not in ("stop", "length"):
            raise EngineError(f"the server ended the answer for another reason than its end or length: {finish}")
        ids = tuple(choice.get("token_ids") or ())
        if finish == "stop" and not isinstance(choice.get("stop_reason"), str):  # by a token
            ids = ids[:-1]
        if ids:
            text, ids, stopped = self._renderer.cut(ids, decoding.stop)
        else:
            whole = str(choice["message"]["content"] or "")
            place = first_stop(whole, decoding.stop)
            text, stopped = whole[:place].strip(), place is not None
        finish = "stop" if stopped else finish
        return Generation(request.id, text, ids, finish, int(answer["usage"]["prompt_tokens"]))

    def _score(self, request: ScoreRequest) -> Score:
        target = self._renderer.target_ids(request.messages, request.target, request.image is not None)
        turns = [*request.messages, {"role": "assistant", "content": request.target}]
        body = {
            "messages": self._messages(turns, request.image),
            "add_generation_prompt": False,
            "prompt_logprobs": 0,
            "max_tokens": 1,
            "temperature": 0,
        }
        rows = self._ask(body).get("prompt_logprobs")
        if not rows:
            raise _ServerError(
                f"{self._settings.url}: returns no prompt_logprobs, which likelihoods are read from; "
                "serve the model with `vllm serve`, or set engine.kind to vllm or transformers"
            )
        # The first token of a prompt has no likelihood. Each other row names the prompt's own token.
        tokens = [-1, *(int(next(iter(row))) for row in rows[1:])]
        # The server expands images and closes the turn as its template does, so only the end can be lined up.
        for start in range(len(tokens) - len(target), 0, -1):
            end = start + len(target)
            if tokens[start:end] == target and not self._renderer.decode(tokens[end:]):
                kept = zip(rows[start:end], target, strict=True)
                return Score(request.id, tuple(float(row[str(token)]["logprob"]) for row, token in kept))
        return Score(request.id, (), "the server splits this target into other tokens than the checkpoint's tokenizer")

    def _messages(self, messages: Sequence[Message], image: str | None) -> list[dict[str, Any]]:
        if image is None:
            return [dict(message) for message in messages]
        turns = in_parts(messages, image=True)
        for turn in turns:
            for i, part in enumerate(turn["content"]):
                if part["type"] == "image":
                    turn["content"][i] = {"type": "image_url", "image_url": {"url": self._url_of(image)}}
        return turns

    def _url_of(self, image: str) -> str:
        return self._image_url(image)

    def _stream(
        self,
        requests: Sequence[_Item],
        work: Callable[[_Item], _Result],
        fail: Callable[[_Item, str], _Result],
    ) -> Iterator[_Result]:
        def attempt(request: _Item) -> _Result:
            try:
                return work(request)
            except _ServerError:
                raise
            except EngineError as error:  # this row's own fault: its image, its template, its length
                return fail(request, str(error))

        executor = ThreadPoolExecutor(self._settings.concurrency, thread_name_prefix="endpoint")
        try:
            yield from executor.map(attempt, requests)
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._call("POST", "/chat/completions", {"model": self._model, **body})

    def _served(self, checkpoint: str) -> tuple[str, bool]:
        """The name of the model to ask for, and whether vLLM serves it."""
        models = self._call("GET", "/models")["data"]
        if self._settings.model is not None:
            chosen = [model for model in models if model["id"] == self._settings.model]
        else:
            wanted = {checkpoint, str(Path(checkpoint).resolve())}
            chosen = [model for model in models if wanted & {model["id"], model.get("root"), _resolved(model)}]
        if not chosen:
            names = ", ".join(str(model["id"]) for model in models) or "nothing"
            wish = self._settings.model or checkpoint
            raise EngineError(
                f"{self._settings.url}: serves {names}, not {wish}; start `vllm serve {checkpoint}`, "
                "or name the served model to use in engine.model"
            )
        return str(chosen[0]["id"]), chosen[0].get("owned_by") == "vllm"

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One answer of the server. `EngineError`: a bad request. `_ServerError`: a server to give up on."""
        if self._client is None:
            raise EngineError("the engine is closed")
        where = f"{self._settings.url}: {method} /v1{path}"
        for pause in (*_PAUSES, None):
            try:
                response = self._client.request(method, path, json=body)
            except httpx.TimeoutException as error:
                raise _ServerError(
                    f"{where} had no answer after {self._settings.timeout:g} s; "
                    "is the server still loading or stuck? engine.timeout sets how long to wait"
                ) from error
            except httpx.TransportError as error:
                raise _ServerError(f"{where} failed ({error}); is the server running?") from error
            if response.status_code not in _BUSY or pause is None:
                break
            time.sleep(pause)
        if response.status_code in (400, 413, 422):
            raise EngineError(_reason(response))
        if response.status_code != 200:
            raise _ServerError(f"{where} answered {response.status_code}: {_reason(response)}")
        try:
            answer: dict[str, Any] = response.json()
        except ValueError:
            raise _ServerError(
                f"{where} answered something that is no JSON; is engine.url an OpenAI-compatible API?"
            ) from None
        return answer


class _ServerError(EngineError):
    """Not one request but the server is at fault, so that the others would fail as well."""


def _key(settings: EndpointSettings) -> str | None:
    if settings.api_key_env is None:
        return None
    key = os.environ.get(settings.api_key_env)
    if not key:
        raise EngineError(f"engine.api_key_env: the environment has no {settings.api_key_env}; export it first")
    return key


def _resolved(model: dict[str, Any]) -> str:
    return str(Path(str(model.get("root") or model["id"])).resolve())


def _image_url(path: str) -> str:
    """The image as a data URL, without loss."""
    buffer = io.BytesIO()
    open_image(path).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _reason(response: httpx.Response) -> str:
    try:
        answer = response.json()
        text = str(answer.get("error", answer).get("message", answer))
    except (ValueError, AttributeError):
        text = response.text
    return " ".join(text.split())[:300]
