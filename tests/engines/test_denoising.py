"""The denoising loop on a tiny bidirectional model, against a reference written from its description."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import LlamaConfig, LlamaForCausalLM

from engines.denoising import HIDDEN, Canvases, Denoiser, Schedule, gumbel_draw, inverse_draw, joined, uniforms
from engines.masked import forward_of

MASK, PAD, END, VOCABULARY = 3, 0, 2, 40
PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13], [14], [15, 16, 17, 18]]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.4,
        is_causal=False,
    )
    return LlamaForCausalLM(config).eval()


def denoiser(model: LlamaForCausalLM, schedule: Schedule, **changed: object) -> Denoiser:
    return Denoiser(forward_of(model), schedule, MASK, PAD, **({"temperature": 0.8} | changed))  # type: ignore[arg-type]


def blank(schedule: Schedule, prompts: list[list[int]] = PROMPTS) -> Canvases:
    return Canvases.blank(prompts, schedule.length, MASK, [(100 + i, 0) for i in range(len(prompts))])


def reference(
    model: LlamaForCausalLM, prompt: list[int], schedule: Schedule, seed: int, temperature: float
) -> list[int]:
    """Textbook: the whole canvas through the model each step, softmax over the vocabulary, one row at a time."""
    canvas, taken = [MASK] * schedule.length, 0
    for block in range(0, schedule.length, schedule.block_length):
        each, more = divmod(schedule.block_length, schedule.steps_per_block)
        for step in range(schedule.steps_per_block):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([prompt + canvas])).logits[0, len(prompt) :].double()
            noise = torch.from_numpy(uniforms((seed, 0), taken, schedule.block_length * VOCABULARY))
            noise = noise.view(schedule.block_length, VOCABULARY)
            candidates = []
            for place in range(block, block + schedule.block_length):
                if canvas[place] == MASK:
                    allowed = logits[place].clone()
                    allowed[MASK] = -torch.inf
                    token = int((allowed.exp() / (-noise[place - block].log()) ** temperature).argmax())
                    candidates.append((-float(logits[place].softmax(-1)[token]), place, token))
            for _, place, token in sorted(candidates)[: each + (step < more)]:
                canvas[place] = token
            taken += 1
    return canvas


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.3])
def test_gumbel_path_is_the_reference_token_for_token(model: LlamaForCausalLM, temperature: float) -> None:
    schedule = Schedule(12, 6, 4)
    made = denoiser(model, schedule, temperature=temperature, draw="gumbel").run(blank(schedule))
    for row, prompt in enumerate(PROMPTS):
        assert made.ids[row].tolist() == reference(model, prompt, schedule, 100 + row, temperature)


def test_both_draws_follow_the_softmax() -> None:
    torch.manual_seed(1)
    logits, temperature, count = torch.randn(1, 12) * 2, 0.6, 100_000
    logits[0, 4] = -torch.inf
    wanted = (logits[0].double() / temperature).softmax(-1)
    generator = np.random.default_rng(0)
    by_inverse = inverse_draw(logits.expand(count, -1), torch.from_numpy(generator.random(count)), temperature)
    by_gumbel = gumbel_draw(logits.expand(count, -1), torch.from_numpy(generator.random((count, 12))), temperature)
    for drawn in (by_inverse, by_gumbel):
        seen = torch.bincount(drawn, minlength=12)
        assert seen[4] == 0
        kept = wanted > 0
        assert chisquare(seen[kept].numpy(), (wanted[kept] * count).numpy()).pvalue > 1e-3


def test_the_largest_uniform_draws_no_forbidden_token() -> None:
    logits = torch.tensor([[1.0, 2.0, -torch.inf], [-torch.inf, 0.0, 0.0]])
    drawn = inverse_draw(logits, torch.tensor([1 - 2**-53, 0.0], dtype=torch.float64), 1.0)
    assert drawn.tolist() == [1, 1]


def test_mask_and_banned_tokens_are_never_drawn_however_likely(model: LlamaForCausalLM) -> None:
    def forward(ids: torch.Tensor, attention: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        logits = forward_of(model)(ids, attention, positions).clone()
        logits[..., [MASK, 7]] = 50.0
        return logits

    schedule = Schedule(8, 4, 2)
    for temperature in (0.0, 1.0):
        sampler = Denoiser(forward, schedule, MASK, PAD, banned_ids=[7], temperature=temperature)
        made = sampler.run(blank(schedule), guess_at=[2])
        assert not torch.isin(made.ids, torch.tensor([MASK, 7])).any()
        assert not torch.isin(made.guesses[2], torch.tensor([MASK, 7])).any()


def test_a_step_map_rebuilds_every_state(model: LlamaForCausalLM) -> None:
    schedule = Schedule(12, 4, 3)
    states: list[torch.Tensor] = []

    def watching(ids: torch.Tensor, attention: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        states.append(ids[:, -schedule.length :].clone())
        return forward_of(model)(ids, attention, positions)

    made = Denoiser(watching, schedule, MASK, PAD, temperature=0.8).run(blank(schedule))
    assert (made.step_map != HIDDEN).all()
    assert len(states) == schedule.steps
    for step, state in enumerate(states):
        rebuilt = made.at(range(len(PROMPTS)), [step] * len(PROMPTS), MASK, made.keys)
        assert torch.equal(rebuilt.ids, state)


def test_resuming_anywhere_with_the_same_key_gives_the_same_tokens(model: LlamaForCausalLM) -> None:
    schedule = Schedule(12, 4, 3)
    whole = denoiser(model, schedule).run(blank(schedule))
    rows = range(len(PROMPTS))
    for step in range(schedule.steps + 1):
        sampler = denoiser(model, schedule)
        again = sampler.run(whole.at(rows, [step] * len(PROMPTS), MASK, whole.keys))
        assert torch.equal(again.ids, whole.ids) and torch.equal(again.step_map, whole.step_map)
        assert sampler.passes == len(PROMPTS) * (schedule.steps - step)
        assert sampler.tokens == sum(schedule.revealed(s) for s in range(step, schedule.steps)) * len(PROMPTS)
    other = denoiser(model, schedule).run(
        whole.at(rows, [3] * len(PROMPTS), MASK, [(seed, 1) for seed, _ in whole.keys])
    )
    assert not torch.equal(other.ids, whole.ids)
    kept = whole.step_map < 3
    assert torch.equal(other.ids[kept], whole.ids[kept])


def test_late_joins_order_and_batch_size_change_no_token(model: LlamaForCausalLM) -> None:
    schedule = Schedule(12, 4, 3)
    whole = denoiser(model, schedule).run(blank(schedule))
    rows, steps = [2, 0, 3, 1, 0, 2], [4, 0, 7, 2, 8, 1]
    keys = [(seed, branch) for branch, seed in enumerate(range(200, 206))]
    for batch_size in (1, 2, 5, 64):
        sampler = denoiser(model, schedule, batch_size=batch_size)
        together = sampler.run(whole.at(rows, steps, MASK, keys))
        assert sampler.passes == sum(schedule.steps - step for step in steps)
        for place, (row, step, key) in enumerate(zip(rows, steps, keys, strict=True)):
            alone = denoiser(model, schedule).run(whole.at([row], [step], MASK, [key]))
            assert torch.equal(together.ids[place], alone.ids[0])


def test_padding_on_the_left_is_not_seen(model: LlamaForCausalLM) -> None:
    schedule = Schedule(8, 4, 2)
    together = denoiser(model, schedule).run(blank(schedule))
    for row, prompt in enumerate(PROMPTS):
        start = Canvases.blank([prompt], schedule.length, MASK, [(100 + row, 0)])
        assert torch.equal(denoiser(model, schedule).run(start).ids[0], together.ids[row])
    ids, attention = joined(PROMPTS, together.ids, PAD)
    assert ids[0].tolist()[:6] == [PAD] * 3 + PROMPTS[0] and attention[0].tolist()[:6] == [0] * 3 + [1] * 3


def test_published_schedule_reveals_two_tokens_a_step_block_by_block(model: LlamaForCausalLM) -> None:
    schedule = Schedule(256, 32, 16)
    assert schedule.steps == 128 and {schedule.revealed(step) for step in range(128)} == {2}
    made = denoiser(model, schedule).run(blank(schedule, PROMPTS[:1]))
    blocks = made.step_map[0].view(8, 32).long() // 16
    assert torch.equal(blocks, torch.arange(8)[:, None].expand(8, 32))


def test_uneven_steps_reveal_more_at_the_beginning_of_a_block() -> None:
    schedule = Schedule(10, 5, 3)
    assert [schedule.revealed(step) for step in range(6)] == [2, 2, 1, 2, 2, 1]
    assert schedule.boundaries == [3]


@pytest.mark.parametrize(("sizes", "words"), [((10, 4, 2), "divide"), ((8, 4, 5), "no use"), ((8, 0, 1), "at least 1")])
def test_bad_divisions_are_refused(sizes: tuple[int, int, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Schedule(*sizes)


def test_a_row_that_has_ended_takes_no_further_steps_and_keeps_its_tokens(model: LlamaForCausalLM) -> None:
    schedule = Schedule(24, 4, 2)
    whole = denoiser(model, schedule).run(blank(schedule))
    ends = {int(whole.ids[0, 6])}  # So that one row ends in its second block.
    sampler = denoiser(model, schedule, end_ids=ends)
    stopped = sampler.run(blank(schedule))
    assert sampler.passes < schedule.steps * len(PROMPTS)
    for row in range(len(PROMPTS)):
        is_end = torch.isin(whole.ids[row], torch.tensor(sorted(ends)))
        last = int(is_end.int().argmax()) if is_end.any() else schedule.length - 1
        assert torch.equal(stopped.ids[row, : last + 1], whole.ids[row, : last + 1])
    behind = stopped.step_map[0] == HIDDEN
    assert behind[8:].all() and (stopped.ids[0, 8:] == MASK).all()
    assert sampler.run(stopped.at([0], [schedule.steps], MASK, [(1, 1)])).ids[0].tolist() == stopped.ids[0].tolist()


def test_guesses_fill_the_whole_canvas_from_one_state(model: LlamaForCausalLM) -> None:
    schedule = Schedule(12, 4, 2)
    made = denoiser(model, schedule).run(blank(schedule), guess_at=schedule.boundaries)
    for step in schedule.boundaries:
        state = made.at(range(len(PROMPTS)), [step] * len(PROMPTS), MASK, made.keys).ids
        for row, prompt in enumerate(PROMPTS):
            logits = model(input_ids=torch.tensor([prompt + state[row].tolist()])).logits[0, len(prompt) :]
            logits[:, MASK] = -torch.inf
            wanted = torch.where(state[row] == MASK, logits.argmax(-1), state[row])
            assert torch.equal(made.guesses[step][row], wanted)
    plain = denoiser(model, schedule).run(blank(schedule))
    assert torch.equal(plain.ids, made.ids)
