"""TRL's sampling by vLLM in the training process, made to sample from the very model that is trained.

TRL 1.16 alone goes wrong without a word: vLLM chooses bfloat16 for a float32 model and expands image placeholders that
the processor has expanded already, and on a CPU the second handing over of weights fails. Elsewhere the code is TRL's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from accelerate.utils import set_seed
from trl.generation import vllm_generation
from trl.trainer import grpo_trainer

from engines.base import EngineError
from engines.rendering import banned_ids
from engines.settings import VllmSettings
from engines.vllm import forget_vllm, open_llm, replace_weights
from engines.weights import is_renamed, named_weights
from selfrefine.instead import instead
from selfrefine.stepwise.grpo import with_vllm

with_vllm()
_Trainer = TypeVar("_Trainer")
_AUTOCAST = {"bf16": "bfloat16", "fp16": "float16"}
_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@contextmanager
def sampling_by_vllm(make: Callable[[], _Trainer]) -> Iterator[_Trainer]:
    """The trainer that `make` makes, a `GRPOTrainer` with `use_vllm`; vLLM lives until the end of the block.

    Raises `EngineError` where vLLM cannot start, or reads another prompt than the trainer.
    """
    with instead(grpo_trainer, "VLLMGeneration", Colocated):
        trainer: Any = make()
    # vLLM seeds the whole process when it starts, always with the same number. It samples with the process's own
    # generators, so that a resumed training, whose generators Trainer restores, goes on with the same samples.
    set_seed(trainer.args.seed, device_specific=True)
    try:
        yield trainer
    finally:
        trainer.vllm_generation.close()


class Colocated(vllm_generation.VLLMGeneration):  # type: ignore[misc]
    """TRL's vLLM with the trained model's dtype, weights and prompts."""

    generation_kwargs: dict[str, Any]

    def _init_vllm(self) -> None:
        if self._dist.is_fsdp or self._dist.is_zero3:
            raise EngineError("sampler vllm wants whole weights in each process, not FSDP or ZeRO-3: use transformers")
        config = self.model.config
        # The sampled log-probabilities are those of what was sampled from, so without the tokens that are banned; TRL
        # weighs a completion by what the model would have said of it.
        bias = {**self.generation_kwargs.get("logit_bias", {}), **dict.fromkeys(banned_ids(config), float("-inf"))}
        self.generation_kwargs = {**self.generation_kwargs, "logit_bias": bias or None}
        opened = partial(
            _opened,
            config=config,
            dtype=_AUTOCAST.get(self.accelerator.mixed_precision) or str(self.model.dtype).removeprefix("torch."),
            # Names that vLLM does not know are no loss: all weights are handed over before the first completion.
            load_format="dummy" if is_renamed(config) else "auto",
        )
        with instead(vllm_generation, "LLM", opened), _same_ranks():
            super()._init_vllm()

    def sync_weights(self) -> None:
        """The weights as they are now. TRL's own way cannot be used twice on a CPU, and leaves rounding in a base."""
        replace_weights(self.llm, named_weights(self.model), self.model.config)

    def generate(
        self, prompts: list[list[int]], images: list[Any] | None, num_generations: int, profiler: Any = None
    ) -> tuple[Any, ...]:
        """As TRL's, for prompts whose image placeholders are expanded.

        Raises `EngineError` where vLLM reads an image prompt as other tokens than the trainer.
        """
        if images is None:
            return tuple(super().generate(prompts, None, num_generations, profiler))
        asked = [collapsed(ids, self.model.config.image_token_id) for ids in prompts]
        read, *rest = super().generate(asked, images, num_generations, profiler)
        for ours, theirs in zip(prompts, read, strict=True):
            if list(theirs) != list(ours):
                raise EngineError(
                    f"sampler vllm: vLLM reads a prompt with an image as {len(theirs)} tokens, the model's processor "
                    f"as {len(ours)}: it would answer another prompt; use sampler: transformers"
                )
        return (read, *rest)

    @property
    def context(self) -> int:
        """The most tokens that a prompt and its completion may take."""
        return int(self.llm.llm_engine.model_config.max_model_len)

    def close(self) -> None:
        """Stops vLLM."""
        self.llm.llm_engine.engine_core.shutdown()
        del self.llm
        forget_vllm()


def collapsed(ids: Sequence[int], token: int) -> list[int]:
    """`ids` with one `token` for each run of it: vLLM expands the placeholder of an image itself."""
    return [each for place, each in enumerate(ids) if each != token or not place or ids[place - 1] != token]


def _opened(*, model: str, config: Any, **options: Any) -> Any:
    return open_llm(model, config, VllmSettings().cpu_kv_cache_gib, **options)


@contextmanager
def _same_ranks() -> Iterator[None]:
    """Takes back the ranks that TRL sets for vLLM: a later training would take itself for one of several processes."""
    before = {name: os.environ.get(name) for name in _RANKS}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
