"""The denoising loop against a textbook one: the same tokens at temperature 0, in less time."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from engines.denoising import Canvases, Denoiser, Schedule, completion
from engines.masked import forward_of

MASK, PAD = 1, 0
PROMPT, ROWS = 32, 4


def compare(vocabulary: int, hidden_size: int, schedule: Schedule, ends_at: int | None = None) -> tuple[float, float]:
    """Seconds of the textbook sampler and of ours. Raises `AssertionError` where their tokens differ.

    `ends_at`: whatever stands at that place ends an answer, as an end token would in a trained model.
    """
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=hidden_size,
            intermediate_size=4 * hidden_size,
            num_hidden_layers=4,
            num_attention_heads=4,
            initializer_range=0.05,
            is_causal=False,
        )
    ).eval()
    prompts = torch.randint(2, vocabulary, (ROWS, PROMPT))
    keys = [(seed, 0) for seed in range(ROWS)]
    start = time.perf_counter()
    theirs = textbook(model, prompts, schedule)
    between = time.perf_counter()
    ends = set() if ends_at is None else set(theirs[:, ends_at].tolist())
    denoiser = Denoiser(forward_of(model), schedule, MASK, PAD, end_ids=ends)
    again = time.perf_counter()
    ours = denoiser.run(Canvases.blank(prompts.tolist(), schedule.length, MASK, keys)).ids
    end = time.perf_counter()
    for a, b in zip(theirs.tolist(), ours.tolist(), strict=True):
        assert completion(a, ends) == completion(b, ends), "the two samplers do not agree"
    return between - start, end - again


@torch.no_grad()
def textbook(model: LlamaForCausalLM, prompts: torch.Tensor, schedule: Schedule) -> torch.Tensor:
    """As published: logits and softmax in float64 over the vocabulary at every position, a loop over rows to reveal."""
    width = prompts.shape[1]
    ids = torch.cat([prompts, torch.full((len(prompts), schedule.length), MASK)], 1)
    for step in range(schedule.steps):
        logits = model(input_ids=ids).logits
        logits[..., MASK] = -torch.inf
        drawn = logits.argmax(-1)
        confidence = logits.double().softmax(-1).gather(-1, drawn[..., None]).squeeze(-1)
        block = schedule.block(step)
        confidence[:, : width + block.start] = -torch.inf
        confidence[:, width + block.stop :] = -torch.inf
        confidence[ids != MASK] = -torch.inf
        for row in range(len(ids)):
            chosen = confidence[row].topk(schedule.revealed(step)).indices
            ids[row, chosen] = drawn[row, chosen]
    return ids[:, width:]


def rows() -> Iterator[tuple[str, float, float]]:
    """(what, seconds of the textbook sampler, of ours)."""
    for vocabulary in (512, 16_000):
        compare(vocabulary, 256, Schedule(32, 32, 2))  # warms both
        # 64 tokens of answer in both: one canvas is full, the other twice as long.
        for what, length, ends_at in (("a canvas of 64", 64, None), ("half of a canvas of 128", 128, 63)):
            taken = compare(vocabulary, 256, Schedule(length, 32, 16), ends_at)
            yield f"vocabulary {vocabulary:,}, answers fill {what}", *taken
