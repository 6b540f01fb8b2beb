"""The loop computes what its formula says, nothing at 0 iterations, and leaves the base as it was."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engines.base import EngineError
from engines.looped.config import LoopSettings, default_layers
from engines.looped.loop import LatentLoop, loop_of
from engines.looped.tower import tower_of
from tests.engines.looped_models import KINDS, Low, base, enliven, looped, tokens

DTYPES = (torch.float32, torch.bfloat16)


@torch.no_grad()
def logits(model: Any, ids: Tensor | None = None, **inputs: Any) -> Tensor:
    found: Tensor = model(input_ids=tokens() if ids is None else ids, use_cache=False, **inputs).logits
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_no_iterations_are_the_base_and_shut_gates_are_at_any_number(kind: str, dtype: torch.dtype) -> None:
    model = base(kind, dtype)
    expected = logits(model)
    loop = looped(model, lora_sets="shared")
    loop.iterations = 1
    assert not torch.equal(logits(model), expected)
    loop.iterations = 0
    assert torch.equal(logits(model), expected)
    nn.init.zeros_(loop.gate_mix)
    for loop.iterations in (1, 2, 5):
        assert torch.equal(logits(model), expected)


def test_a_shut_gate_keeps_out_what_is_not_finite() -> None:
    model = base()
    expected = logits(model)
    loop = looped(model)
    nn.init.zeros_(loop.gate_mix)
    # In all of them: of a query that is not finite some processors' attention makes zeros.
    for weights in loop.trainable()["lora"]:
        nn.init.constant_(weights, torch.inf)
    assert torch.equal(logits(model), expected)
    nn.init.constant_(loop.gate_mix, 0.1)
    assert not logits(model).isfinite().all()


@pytest.mark.parametrize(
    "settings",
    [
        {"iterations": 3, "input_iterations": 1},
        {"iterations": 3, "input_iterations": 2, "state_scale": "none"},
        {"iterations": 3, "input_iterations": 0, "layers": (0, 4)},
        {"iterations": 2, "input_iterations": 2, "layers": (3, 6), "lora_sets": "per_iteration"},
    ],
)
def test_iterations_are_those_of_the_formula(settings: dict[str, Any]) -> None:
    model = base(dtype=torch.float64)
    loop = looped(model, **settings)
    # The norms of these classes compute in float32, and iterations make rounding errors grow.
    torch.testing.assert_close(logits(model), by_formula(loop, base(dtype=torch.float64)), rtol=0, atol=1e-3)


@torch.no_grad()
def by_formula(loop: LatentLoop, model: Any) -> Tensor:
    """Logits of a loop by models cut from the base: the layers before, the span with LoRA added in, those behind."""
    settings, span = loop.config.loop, loop.config.span

    def part(first: int, last: int, iteration: int | None = None, norm: bool = False) -> Any:
        cut = copy.deepcopy(model.model)
        cut.layers = nn.ModuleList(copy.deepcopy(layer) for layer in list(model.model.layers)[first:last])
        cut.norm = cut.norm if norm else nn.Identity()
        cut.config.num_hidden_layers = last - first
        if iteration is not None:
            add_lora(loop, cut, iteration)
        return lambda x: cut(inputs_embeds=x, use_cache=False).last_hidden_state

    entered = part(0, span.start)(model.model.embed_tokens(tokens()))
    state = part(span.start, span.stop)(entered)
    for k in range(1, settings.iterations + 1):
        given = state + (loop.gate_in * entered if k <= settings.input_iterations else 0)
        if settings.state_scale == "match_input":
            given = given * entered.square().mean(-1, True).sqrt() / given.square().mean(-1, True).sqrt()
        made = part(span.start, span.stop, iteration=k)(given)
        state = state + loop.gate_mix.tanh() * (made - state)
    found: Tensor = model.lm_head(part(span.stop, 6, norm=True)(state))
    return found


def add_lora(loop: LatentLoop, cut: Any, iteration: int) -> None:
    held, _ = loop._held
    name = "shared" if loop.config.loop.lora_sets == "shared" else f"iteration_{iteration}"
    assert loop.config.lora is not None
    for number, layer in zip(loop.config.span, cut.layers, strict=True):
        for module in loop.config.lora.modules:
            lora = held.model.layers[number].get_submodule(module)
            up, down = lora.lora_B[name].weight, lora.lora_A[name].weight
            layer.get_submodule(module).weight += up @ down * loop.config.lora.alpha / loop.config.lora.r


@pytest.mark.parametrize("collected_before", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_hidden_states_and_attentions_are_those_of_the_own_pass(kind: str, collected_before: bool) -> None:
    """Whether transformers' hooks that collect them are there before the loop's, or come after."""
    asked = {"input_ids": tokens(), "use_cache": False, "output_hidden_states": True, "output_attentions": True}
    untouched, model = base(kind), base(kind)
    untouched.set_attn_implementation("eager")
    model.set_attn_implementation("eager")
    expected = untouched(**asked)
    if collected_before:
        model(**asked)
    loop = looped(model)
    entered: list[Tensor] = []
    for layer in tower_of(model).layers:
        layer.register_forward_pre_hook(
            lambda layer, args, kwargs: entered.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        )
    found = model(**asked)
    read = [entered[call] for call in (0, 1, 2, 3, -2, -1)]  # between them the calls of two iterations: layers 2 and 3
    assert len(entered) == 10 and len(found.hidden_states) == 7 and len(found.attentions) == 6
    assert all(torch.equal(one, other) for one, other in zip(found.hidden_states[:-1], read, strict=True))
    assert torch.equal(model.get_output_embeddings()(found.hidden_states[-1]), found.logits)
    same = [torch.equal(*pair) for pair in zip(found.attentions, expected.attentions, strict=True)]
    assert same == [True, True, True, True, False, False]
    with loop.aligned(2, (1, 2)):
        together = model(**asked)
    assert len(together.hidden_states) == 7 and len(together.attentions) == 6
    nn.init.zeros_(loop.gate_mix)
    shut = model(**asked)
    for name in ("hidden_states", "attentions"):
        assert all(torch.equal(*pair) for pair in zip(shut[name], expected[name], strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_padding_on_the_left_changes_nothing(kind: str) -> None:
    model = base(kind)
    looped(model)
    ids, mask = tokens(2, 8), torch.ones(2, 8, dtype=torch.long)
    ids[1, :3], mask[1, :3] = 0, 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    padded = logits(model, ids, attention_mask=mask, position_ids=positions)
    torch.testing.assert_close(padded[1:, 3:], logits(model, ids[1:, 3:]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sets", ["shared", "per_iteration"])
def test_an_exception_inside_leaves_indices_and_lora_as_they_were(sets: str, monkeypatch: Any) -> None:
    model = base()
    loop = looped(model, lora_sets=sets)
    expected, ids = logits(model), tokens()
    last = model.model.layers[loop.config.span[-1]]
    seen = []

    def fails(*args: Any, **kwargs: Any) -> Any:
        seen.append(last.self_attn.layer_idx)
        if len(seen) == 2:
            raise RuntimeError("planted")
        return type(last.mlp).forward(last.mlp, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="planted"):
        patch.setattr(last.mlp, "forward", fails)
        model(input_ids=ids, use_cache=True)
    assert seen == [3, 7]  # the model's own pass, then the first iteration, whose keys lie behind those of 6 layers
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == list(range(6))
    assert all(module.disable_adapters for module in model.modules() if hasattr(module, "disable_adapters"))
    assert torch.equal(logits(model), expected)


def test_taken_off_it_leaves_the_base_and_a_second_one_is_alone() -> None:
    untouched = base()
    model = base()
    looped(model)
    with_first = logits(model)
    with pytest.raises(EngineError, match="has a loop already"):
        looped(model)
    assert loop_of(model).remove() is model  # type: ignore[union-attr]
    assert torch.equal(logits(model), logits(untouched))
    assert model.state_dict().keys() == untouched.state_dict().keys()
    enliven(looped(model, lively=False, layers=(1, 5)), seed=2)
    enliven(looped(untouched, lively=False, layers=(1, 5)), seed=2)
    assert torch.equal(logits(model), logits(untouched))
    assert not torch.equal(logits(model), with_first)


def test_two_models_on_copies_of_one_base_do_not_mix() -> None:
    first, second = base(), base()
    enliven(looped(first, lively=False), seed=1)
    alone = logits(first)
    enliven(looped(second, lively=False), seed=2)
    other = logits(second)
    assert torch.equal(logits(first), alone)
    assert not torch.equal(other, alone)


def test_numbers_of_iterations_that_cannot_be_are_refused() -> None:
    loop = looped(base(), lora_sets="per_iteration", iterations=2)
    with pytest.raises(EngineError, match="iterations -1: give 0"):
        loop.iterations = -1
    with pytest.raises(EngineError, match=r"iterations 3: .* only 2 were trained"):
        loop.iterations = 3
    for wrong in (2.5, "3", None):
        with pytest.raises(EngineError, match=f"^iterations {wrong!r}: give a whole number"):
            loop.iterations = wrong  # type: ignore[assignment]
    assert loop.iterations == 2
    loop.iterations = 1
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        LoopSettings(iterations=-1)
    with pytest.raises(ValueError, match="there would be no loss"):
        LoopSettings(iterations=2, align_every=3, align_final=False)


def test_layers_and_models_that_cannot_be_looped_are_refused() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    with pytest.raises(EngineError, match=r"\[4, 7\] ends behind the model's last layer; it has 6"):
        looped(base(), layers=(4, 7))
    with pytest.raises(EngineError, match="GPT2LMHeadModel: only decoders"):
        looped(GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=9)))
    with pytest.raises(EngineError, match="matches none of a layer's"):
        looped(base(), Low(target_modules="q_proj"))


@pytest.mark.parametrize(("depth", "layers"), [(1, (0, 1)), (2, (0, 2)), (6, (2, 4)), (30, (10, 14)), (36, (12, 16))])
def test_the_default_span_is_an_eighth_from_a_third_on(depth: int, layers: tuple[int, int]) -> None:
    assert default_layers(depth) == layers


@pytest.mark.parametrize(
    ("every", "final", "expected"), [(1, True, (1, 2, 3)), (2, True, (2, 3)), (2, False, (2,)), (5, False, (3,))]
)
def test_aligned_iterations(every: int, final: bool, expected: tuple[int, ...]) -> None:
    assert LoopSettings(iterations=9, align_every=every, align_final=final).aligned(3) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_an_aligned_pass_gives_what_each_number_of_iterations_gives(kind: str) -> None:
    model = base(kind)
    loop = looped(model, iterations=3)
    each = []
    for loop.iterations in (1, 3):
        each.append(logits(model))
    with loop.aligned(3, (1, 3)):
        together = logits(model)
    torch.testing.assert_close(together, torch.cat(each), rtol=1e-4, atol=1e-4)
    assert loop.growth.keys() == {1, 2, 3}
    assert loop.iterations == 3


def lora_gradients(loop: LatentLoop, part: slice) -> dict[str, float]:
    """Set of LoRA weights → size of the gradient of a loss on the rows `part` of an aligned pass, B weights only."""
    model, _ = loop._held
    for parameter in model.parameters():
        parameter.grad = None
    model(input_ids=tokens(), use_cache=False).logits[part].square().mean().backward()
    sizes: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            gradient = 0.0 if parameter.grad is None else float(parameter.grad.abs().sum())
            sizes[name.split(".")[-2]] = sizes.get(name.split(".")[-2], 0.0) + gradient
    return sizes


def test_a_gradient_ends_where_a_loss_is() -> None:
    loop = looped(base(), lora_sets="per_iteration", iterations=2)
    with loop.aligned(2, (1, 2)):
        first, second = lora_gradients(loop, slice(0, 3)), lora_gradients(loop, slice(3, 6))
    assert first["iteration_1"] > 0 and first["iteration_2"] == 0
    assert second["iteration_1"] == 0 and second["iteration_2"] > 0
    with loop.aligned(2, (2,)):
        through = lora_gradients(loop, slice(None))
    assert through["iteration_1"] > 0 and through["iteration_2"] > 0


def test_the_gate_learns_at_once_and_lora_after_it_has_opened() -> None:
    model = base()
    loop = looped(model, lively=False)
    with loop.aligned(1, (1,)):
        assert lora_gradients(loop, slice(None)) == {"shared": 0.0}
        assert loop.gate_mix.grad is not None and loop.gate_mix.grad.abs().min() > 0
        with torch.no_grad():
            loop.gate_mix -= 0.1 * loop.gate_mix.grad
        assert lora_gradients(loop, slice(None))["shared"] > 0
        assert loop.gate_in.grad is not None and loop.gate_in.grad.abs().max() > 0
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == {
        name for name, _ in model.named_parameters() if ".lora_" in name or name.startswith("latent_loop.gate_")
    }


def test_without_lora_the_gates_alone_are_trained() -> None:
    model = base()
    looped(model, lora=None)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"latent_loop.gate_in", "latent_loop.gate_mix"}


def test_gradient_checkpointing_changes_no_gradient() -> None:
    model = base()
    loop = looped(model, lora_sets="per_iteration", iterations=2).train()

    def gradients() -> list[Tensor]:
        model.train()
        with loop.aligned(2, (2,)):
            lora_gradients(loop, slice(None))
        return [p.grad.clone() for part in loop.trainable().values() for p in part if p.grad is not None]

    expected = gradients()
    passes: list[int] = []
    layer = model.model.layers[loop.config.span[0]]
    layer.register_forward_hook(lambda *_: passes.append(1))
    model.gradient_checkpointing_enable()
    found = gradients()
    assert len(passes) == 5  # the model's own pass, two iterations, and those two again in the backward pass
    assert len(found) == len(expected) > 2
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
