"""Whether prompts leave a model room to answer, found before hours are spent and not when a completion is cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.problem import Problem, TaskError

_AT_ONCE = 64


def check_window(trainer: Any, problems: Sequence[Problem], wanted: int) -> None:
    """Looks at the problems that a `GRPOTrainer` will ask for, the first `wanted` of its order, as it will put them.

    `problems`: those of the trainer's data set, in its order.

    Raises `TaskError` where a prompt and a completion of full length take more tokens than the model's context.
    """
    if trainer.use_vllm:
        context = trainer.vllm_generation.context
    else:
        context = getattr(trainer.model.config.get_text_config(), "max_position_embeddings", None)
    if context is None:  # a model whose context has no bound, or none that is told
        return
    order = range(len(problems)) if wanted >= len(problems) else list(dict.fromkeys(trainer._get_train_sampler()))
    order = order[:wanted]
    lengths = {
        number: tokens
        for start in range(0, len(order), _AT_ONCE)
        for number, tokens in _lengths(trainer, order[start : start + _AT_ONCE])
    }
    room = context - trainer.max_completion_length
    over = [number for number, tokens in lengths.items() if tokens > room]
    if over:
        longest = max(over, key=lengths.__getitem__)
        raise TaskError(
            f"problem {problems[longest].id}: its prompt takes {lengths[longest]} tokens, which with max_new_tokens "
            f"{trainer.max_completion_length} is more than the model's context of {context} ({len(over)} of "
            f"{len(order)} problems are too long); lower max_new_tokens, or leave them out of the data"
        )


def _lengths(trainer: Any, numbers: Sequence[int]) -> list[tuple[int, int]]:
    from trl.data_utils import prepare_multimodal_messages

    rows = trainer.train_dataset[list(numbers)]
    prompts = rows["prompt"]
    if "image" in rows:
        images = [[image] if image else None for image in rows["image"]]
        prompts = [prepare_multimodal_messages(*row) for row in zip(prompts, images, strict=True)]
    ids, _, _ = trainer._tokenize_prompts(prompts)
    return [(number, len(each)) for number, each in zip(numbers, ids, strict=True)]
