"""TRL's SFT trainer with a loss at periodic iterations of a loop.

Of SR² (arXiv 2510.08222): periodic intermediate alignment, with gradients that end where a loss is. What differs: the
losses of a batch are averaged for one optimiser step, where the paper makes a step for each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from trl import SFTConfig, SFTTrainer

from engines.base import EngineError
from engines.looped.loop import loop_of
from selfrefine.latent.adapter.settings import depth_at
from selfrefine.training import IGNORED

_LARGE = 3.0
"""Times the size it began with: behind a norm, a loss does not see states grow (arXiv 2606.24898)."""


class AlignedSFTTrainer(SFTTrainer):  # type: ignore[misc]
    """Trains the loop of a model; the loss is the mean of the cross-entropies at the aligned iterations.

    Logged for each: `loss_K`; the mean of rms(h_k) / rms(h_0) as `growth_K`; and the gates' norms.
    """

    optimizer: Any

    def __init__(
        self,
        model: Any,
        args: SFTConfig,
        *,
        gate_rate: float,
        curriculum: bool,
        warn: Callable[[str], None],
        **kwargs: Any,
    ) -> None:
        """Everything but three is SFTTrainer's. Raises `EngineError` where the model has no loop.

        Args:
            gate_rate: the gates' learning rate, as a multiple of the config's.
            curriculum: train 1, 2, … iterations in turn; else all from the first step on.
            warn: gets a line when the loop's states have grown large; only once.
        """
        loop = loop_of(model)
        if loop is None:
            raise EngineError("the model has no loop to train; put one on it with engines.looped.loop.attach")
        if loop.config.loop.lora_sets == "per_iteration" and args.ddp_find_unused_parameters is None:
            # The sets of iterations that a step does not make get no gradient, for which several processes would wait.
            # Trainer looks for such weights unless it checkpoints; the loop's checkpoints, which do not re-enter, bear
            # that.
            args.ddp_find_unused_parameters = True
        super().__init__(model=model, args=args, **kwargs)
        if self.args.loss_type != "nll" or self.aux_loss_enabled:
            raise EngineError("a loop is trained with the plain likelihood; leave out loss_type, router_aux_loss_coef")
        self._loop = loop
        self._gate_rate, self._curriculum = gate_rate, curriculum
        self._warn: Callable[[str], None] | None = warn

    def create_optimizer(self, model: Any = None) -> Any:
        """The optimiser of TRL's config, with a learning rate of their own for the gates, which do not decay."""
        if self.optimizer is None:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            parts = self._loop.trainable()
            gates = {"lr": self._gate_rate * self.args.learning_rate, "weight_decay": 0.0}
            groups = [
                {"params": parts["gates"], **gates},
                {"params": parts["lora"], "weight_decay": self.args.weight_decay},
            ]
            self.optimizer = kind([group for group in groups if group["params"]], **options)
        return self.optimizer

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        training, depth = self.model.training, self._loop.config.loop.iterations
        if training and self._curriculum:
            depth = depth_at(self.state.global_step, self.state.max_steps, depth)
        at = self._loop.config.loop.aligned(depth)
        labels = inputs["labels"]
        with self._loop.aligned(at[-1], at):
            given = {**inputs, "labels": labels.repeat(len(at), 1), "use_cache": False}
            outputs = model(**given, fused_lm_head=True)
        nats = -outputs.log_probs.view(len(at), -1).sum(1)  # 0 where there is no label
        tokens = (labels[:, 1:] != IGNORED).sum()
        count = tokens if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
        loss = nats.mean() / count.clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * (self.accelerator.num_processes // self.get_tp_size())
        with torch.no_grad():
            found = {f"loss_{k}": each / tokens.clamp(min=1) for k, each in zip(at, nats, strict=True)}
            found["mean_token_accuracy"] = outputs.is_top1.view(len(at), -1)[-1].sum() / tokens.clamp(min=1)
            found |= self._sizes(inputs)
        for name, value in found.items():
            self._metrics["train" if training else "eval"][name].append(float(value))
        return (loss, outputs) if return_outputs else loss

    def _sizes(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of the gates, and of the states over the tokens of a batch; warns of states that have grown large."""
        mask = inputs.get("attention_mask")
        sizes = {"gate_in": self._loop.gate_in.norm(), "gate_mix": self._loop.gate_mix.norm()}
        for k, growth in self._loop.growth.items():
            sizes[f"growth_{k}"] = (growth if mask is None else growth[mask.bool()]).mean()
        if self._warn is not None and any(size > _LARGE for name, size in sizes.items() if name.startswith("growth_")):
            self._warn(
                f"the loop's states grow to more than {_LARGE:g} times their size, which the loss does not see; "
                "lower learning_rate, or make fewer iterations"
            )
            self._warn = None
        return sizes
