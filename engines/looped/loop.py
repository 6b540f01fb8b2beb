"""The loop: hooks that run a span of a model's layers again on its own output, and the gates that let it in.

The model's own forward stays as it is. At 0 iterations nothing is done; while γ_mix is 0, every number of iterations
gives the base model's output bit for bit. `output_hidden_states` and `output_attentions` are those of the model's own
pass, in which the layers behind the span read the last state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from operator import index
from pathlib import Path
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.utils import output_capturing

from engines.base import EngineError
from engines.looped.cache import check_cache, make_room, virtual_index
from engines.looped.config import LoopConfig
from engines.looped.lora import LoopedLora
from engines.looped.tower import tower_of

NAME = "latent_loop"
"""Of the loop among the modules of its model."""
_LEAST = 1e-6


class _Call(NamedTuple):
    """What a layer was called with, but the hidden states."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def cache(self) -> Any:
        return self.kwargs.get("past_key_values")


class LatentLoop(nn.Module):
    """The loop on a model: its gates, and what it does. `attach` and `load_loop` make it; `loop_of` finds it.

    Attributes:
        gate_in: γ_in (D,), what of the span's input is added to the state.
        gate_mix: γ_mix (D,), of which tanh is the share of each pass's output in the next state.
        config: what it was made with.
        growth: of the last forward pass that was aligned: iteration → rms(h_k) / rms(h_0), (B, T).
    """

    def __init__(self, model: Any, config: LoopConfig) -> None:
        super().__init__()
        tower = tower_of(model)
        tower.check_span(config.span)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        width = model.config.get_text_config().hidden_size
        self.config = config
        self.gate_in = nn.Parameter(torch.zeros(width), requires_grad=config.loop.input_iterations > 0)
        self.gate_mix = nn.Parameter(torch.full((width,), config.loop.gate_init))
        self.growth: dict[int, Tensor] = {}
        # In tuples, or the model's own layers would be registered once more, inside themselves.
        self._held = (model, tower)
        self._span = tower.layers[config.span.start : config.span.stop]
        self._tail = tower.layers[config.span.stop :]
        self._lora = LoopedLora(model, tower, config) if config.lora else None
        self._iterations = config.loop.iterations
        self._aligned: tuple[int, ...] = ()
        self._recording = False
        self._entered: Tensor | None = None
        self._calls: dict[int, _Call] = {}
        self._states: list[Tensor] = []
        text, last = tower.text, self._span[-1]
        self._handles = [
            text.register_forward_pre_hook(self._begin, with_kwargs=True),
            text.register_forward_hook(self._end, always_call=True),
            *(
                layer.register_forward_pre_hook(partial(self._record, number), with_kwargs=True)
                for number, layer in enumerate((*self._span, *self._tail))
            ),
            # Before those with which transformers collects hidden states, which may be there already.
            last.register_forward_hook(self._after_span, prepend=True),
        ]

    @property
    def iterations(self) -> int:
        """K, passes beyond the model's own. Can be set at any time; a cache keeps the number it was filled with.

        Setting raises `EngineError` for what is no whole number or below 0, and above the number trained where each
        has its own LoRA weights.
        """
        return self._iterations

    @iterations.setter
    def iterations(self, number: int) -> None:
        try:
            number = index(number)
        except TypeError:
            raise EngineError(f"iterations {number!r}: give a whole number, 0 (the base model) or more") from None
        if number < 0:
            raise EngineError(f"iterations {number}: give 0 (the base model) or more")
        trained = self.config.loop.iterations
        if self.config.lora and self.config.loop.lora_sets == "per_iteration" and number > trained:
            raise EngineError(
                f"iterations {number}: each has LoRA weights of its own, and only {trained} were trained; give no more"
            )
        self._iterations = number

    @contextmanager
    def aligned(self, iterations: int, at: Sequence[int]) -> Iterator[None]:
        """Forward passes with `iterations` iterations whose output holds several of them, for a loss at each.

        The last hidden state has the rows of every iteration in `at` one after the other: (len(at) · B, T, D); give as
        many labels. The gradient ends where an iteration of `at` hands its state on. `at` ends with `iterations`.
        """
        before = self._iterations
        self.iterations, self._aligned = iterations, tuple(at)
        try:
            yield
        finally:
            self._iterations, self._aligned = before, ()

    def trainable(self) -> dict[str, list[nn.Parameter]]:
        """`gates` and `lora`: what is trained; the base is frozen."""
        gates = [gate for gate in (self.gate_in, self.gate_mix) if gate.requires_grad]
        return {"gates": gates, "lora": self._lora.parameters() if self._lora else []}

    def remove(self) -> Any:
        """Takes the loop off and returns the base model as it was, with all parameters frozen."""
        model, _ = self._held
        for handle in self._handles:
            handle.remove()
        if self._lora:
            self._lora.remove(model)
        delattr(model, NAME)
        del model.save_pretrained  # the instance's, and the class's is there again
        return model

    def _begin(self, text: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before the tower: a cache that does not fit is refused while it is still whole."""
        _, tower = self._held
        if (cache := kwargs.get("past_key_values")) is not None:
            check_cache(cache, len(tower.layers), len(self._span), self._iterations)
        self._clear()
        self._recording = self._iterations > 0
        for layer in self._span:
            # A checkpointed layer runs its hooks again in the backward pass, and with them the whole loop. The loop
            # checkpoints its passes itself.
            layer.gradient_checkpointing = False

    def _record(self, number: int, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._recording:
            return
        hidden, call = (
            (args[0], _Call(args[1:], kwargs))
            if args
            else (kwargs["hidden_states"], _Call((), {k: v for k, v in kwargs.items() if k != "hidden_states"}))
        )
        self._calls[number] = call
        if number == 0:
            self._entered = hidden

    def _after_span(self, layer: Any, args: tuple[Any, ...], output: Any) -> Any:
        """Replaces what leaves the span by the last state."""
        if not self._recording:
            return None
        # Not while the loop runs, which calls these layers itself.
        self._recording = False
        state = self._refine(output[0] if isinstance(output, tuple) else output)
        self._recording = True
        return (state, *output[1:]) if isinstance(output, tuple) else state

    def _end(self, text: Any, args: tuple[Any, ...], output: Any) -> Any:
        """After the tower, also where it has raised: puts the iterations side by side, and forgets what was seen."""
        self._recording = False
        try:
            if output is not None and self._aligned:
                output.last_hidden_state = torch.cat([*map(self._read_out, self._states), output.last_hidden_state])
        finally:
            self._clear()
        return output

    def _clear(self) -> None:
        self._recording = False
        self._entered = None
        self._calls, self._states = {}, []

    def _refine(self, first: Tensor) -> Tensor:
        """h_0 (B, T, D) → h_K."""
        _, tower = self._held
        entered, calls = self._entered, [self._calls[number] for number in range(len(self._span))]
        assert entered is not None
        if calls[0].cache is not None:
            if self._aligned:
                raise EngineError("a loss at several iterations takes no key-value cache; give use_cache=False")
            make_room(calls[0].cache, len(tower.layers), self.config.span, self._iterations)
        checkpointed = self.training and getattr(tower.text, "gradient_checkpointing", False)
        loop, share = self.config.loop, torch.tanh(self.gate_mix)
        size, size_first, state = _rms(entered), _rms(first), first
        self.growth = {}
        for k in range(1, self._iterations + 1):
            given = state + self.gate_in * entered if k <= loop.input_iterations else state
            if loop.state_scale == "match_input":
                given = given * (size / _rms(given))
            given = given.to(first.dtype)
            if checkpointed:
                made = checkpoint(self._pass, given, k, calls, use_reentrant=False)
            else:
                made = self._pass(given, k, calls)
            change = made - state
            # 0 · inf is NaN: a gate that is shut keeps even that out. Elsewhere the product stays, for its gradient.
            change = change.masked_fill((self.gate_mix == 0) & ~change.isfinite(), 0)
            state = (state + share * change).to(first.dtype)
            if self._aligned:
                self.growth[k] = (_rms(state) / size_first).detach().squeeze(-1)
                if k in self._aligned and k < self._iterations:
                    self._states.append(state)
                    state = state.detach()
        return state

    def _pass(self, hidden: Tensor, iteration: int, calls: Sequence[_Call]) -> Tensor:
        """Once through the span, with what each layer was called with in the model's own pass."""
        _, tower = self._held
        attentions = [layer.self_attn for layer in self._span]
        own = [attention.layer_idx for attention in attentions]
        try:
            if calls[0].cache is not None:
                for offset, attention in enumerate(attentions):
                    attention.layer_idx = virtual_index(len(tower.layers), len(self._span), iteration, offset)
            if self._lora:
                self._lora.switch(iteration)
            with _uncollected():
                for layer, call in zip(self._span, calls, strict=True):
                    hidden = _hidden(layer(hidden, *call.args, **call.kwargs))
        finally:
            for attention, index in zip(attentions, own, strict=True):
                attention.layer_idx = index
            if self._lora:
                self._lora.switch(None)
        return hidden

    def _read_out(self, state: Tensor) -> Tensor:
        """A state through the layers behind the span, to where the head reads it."""
        _, tower = self._held
        with _uncollected():
            for number, layer in enumerate(self._tail, len(self._span)):
                call = self._calls[number]
                state = _hidden(layer(state, *call.args, **call.kwargs))
        normed: Tensor = tower.norm(state)
        return normed


def attach(model: Any, config: LoopConfig) -> LatentLoop:
    """Puts a new loop on a transformers model, in place, and freezes the model's own weights.

    From then on `model.save_pretrained` writes the loop alone, as a PEFT model writes its adapter; so does that of a
    copy of the model.

    Raises:
        EngineError: the model has a loop or PEFT layers already, or no decoder that can be looped.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    if loop_of(model) is not None:
        raise EngineError("the model has a loop already; take it off with loop_of(model).remove()")
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise EngineError("the model has adapters that are not merged; load it with load_model(path), which merges")
    loop = LatentLoop(model, config).to(model.device)
    model.add_module(NAME, loop)
    # A method of the instance: a deep copy of the model gets one that is bound to the copy.
    model.save_pretrained = MethodType(_save_pretrained, model)
    return loop


def _save_pretrained(
    model: Any,
    directory: str | Path,
    *,
    state_dict: Mapping[str, Tensor] | None = None,
    push_to_hub: bool = False,
    **kwargs: Any,
) -> None:
    from engines.looped.files import save

    if push_to_hub:
        raise EngineError("a loop is saved to a directory alone; push it with model.push_to_hub(repository)")
    save(model, Path(directory), state_dict)


def loop_of(model: Any) -> LatentLoop | None:
    """The loop of a model, if it has one."""
    found = getattr(model, NAME, None)
    return found if isinstance(found, LatentLoop) else None


@contextmanager
def _uncollected() -> Iterator[None]:
    """Layers that are called here give transformers nothing for `output_hidden_states` and the like."""
    collector = output_capturing._active_collector
    before = collector.get()
    collector.set(None)
    try:
        yield
    finally:
        collector.set(before)


def _hidden(output: Any) -> Tensor:
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def _rms(hidden: Tensor) -> Tensor:
    """(…, D) → (…, 1), in float32 or finer."""
    wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    return wide.square().mean(-1, keepdim=True).clamp(min=_LEAST**2).sqrt()
