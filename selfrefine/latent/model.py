"""The recurrent reasoner: an embedding, an update rule and a head, as a model of transformers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.utils import ModelOutput

from engines.base import EngineError
from engines.checkpoint import check_checkpoint
from engines.json_file import read_object
from selfrefine.latent.block import truncated_normal
from selfrefine.latent.config import LatentReasonerConfig, read_config
from selfrefine.latent.loop import segments
from selfrefine.latent.objective import answer_loss
from selfrefine.latent.peers import RULES
from selfrefine.latent.recurrence import State


@dataclass
class ReasonerOutput(ModelOutput):  # type: ignore[misc]
    """`loss`: the sum over the segments that ran. `logits`: (B, S, V) of the last one. `state`: what the next needs."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    state: State | None = None


class LatentReasoner(PreTrainedModel):  # type: ignore[misc]
    """Answers by refining a latent estimate (arXiv 2510.08222), or by the update rule of a peer.

    `forward` begins from a fresh estimate, and goes through all N segments, unless told otherwise.
    """

    config_class = LatentReasonerConfig
    config: LatentReasonerConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    _supports_sdpa = True

    _input_embed_layer = "embedding"
    supports_gradient_checkpointing = True

    def __init__(self, config: LatentReasonerConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.embedding = nn.Embedding(config.vocab_size, size)
        self.prefix = nn.Parameter(torch.zeros(config.prefix_tokens, size))
        learned = config.positions == "learned"
        self.positions = nn.Embedding(config.prefix_tokens + config.seq_len, size) if learned else None
        self.recurrence = RULES[config.recurrence](config)
        self.head = nn.Linear(size, config.vocab_size, bias=False)
        # Saved with the weights: without it a loaded model is another function.
        self.register_buffer("z_init", torch.zeros(self.recurrence.states, size))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        from transformers import initialization

        if isinstance(module, nn.Embedding):
            truncated_normal(module.weight, module.embedding_dim**-0.5)
        elif isinstance(module, nn.Linear):
            truncated_normal(module.weight, module.in_features**-0.5)  # LeCun's
        elif module is self:
            initialization.zeros_(self.prefix)
            if self.config.z_init == "random":
                truncated_normal(self.z_init, 1.0)
            else:
                initialization.zeros_(self.z_init)

    def embed(self, input_ids: Tensor) -> Tensor:
        """(B, S) → (B, P + S, D): the prefix and the tokens, of size 1 in each dimension on average."""
        prefix = self.prefix.expand(len(input_ids), -1, -1)
        embedded = torch.cat([prefix, self.embedding(input_ids)], 1)
        if self.positions is not None:
            # The sum of two is as large as one.
            embedded = math.sqrt(0.5) * (embedded + self.positions.weight[: embedded.shape[1]])
        scaled: Tensor = math.sqrt(self.config.hidden_size) * embedded
        return scaled

    def fresh(self, input_ids: Tensor) -> State:
        """The state before the first update, (B, P + S, D) for each latent; nothing of another input is in it.

        Raises `ValueError` for an input that is longer than `seq_len` or has a token that is none.
        """
        batch, length = input_ids.shape
        config = self.config
        if not input_ids.numel():
            raise ValueError(f"an input of shape {(batch, length)} is empty")
        if length > config.seq_len:
            raise ValueError(f"an input of {length} tokens; this model reads {config.seq_len} at most")
        low, high = int(input_ids.min()), int(input_ids.max())
        if low < 0 or high >= config.vocab_size:
            raise ValueError(f"tokens from {low} to {high}; those of this model are 0 to {config.vocab_size - 1}")
        return tuple(z.expand(batch, config.prefix_tokens + length, -1) for z in self.z_init)

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor | None = None,
        state: State | None = None,
        first: int = 0,
        count: int | None = None,
        cut: bool = True,
    ) -> ReasonerOutput:
        """`count` segments from number `first` on; all that are left unless given.

        Args:
            input_ids: (B, S).
            labels: (B, S), −100 where nothing is judged.
            state: where the segment before ended; fresh unless given.
            cut: False lets the gradient through from segment to segment.

        Raises `ValueError` for an input that is empty, longer than `seq_len` or has a token that is none, for labels of
        another shape, and for no segment at all.
        """
        last = self.config.segments if count is None else first + count
        if first < 0 or last <= first:
            raise ValueError(
                f"segments {first} to {last - 1}: give count 1 or more; this model has {self.config.segments}"
            )
        if labels is not None and labels.shape != input_ids.shape:
            raise ValueError(f"labels of shape {tuple(labels.shape)} for inputs of shape {tuple(input_ids.shape)}")
        losses = []
        for segment in segments(self, input_ids, range(first, last), state, cut=cut):
            if labels is not None:
                losses.append(answer_loss(segment.logits, labels, self.config.loss))
            state, logits = segment.state, segment.logits
        return ReasonerOutput(sum(losses) if losses else None, logits, state)


AutoConfig.register(LatentReasonerConfig.model_type, LatentReasonerConfig)
AutoModel.register(LatentReasonerConfig, LatentReasoner)


def load_reasoner(checkpoint: str) -> LatentReasoner:
    """The reasoner of a checkpoint directory, in evaluation mode.

    Raises `EngineError` for one of another kind, and where its config or its weights are not what was saved.
    """
    check_checkpoint(checkpoint)
    config = Path(checkpoint) / "config.json"
    kind = read_object(config).get("model_type") if config.is_file() else "adapter"
    if kind != LatentReasonerConfig.model_type:
        raise EngineError(f"{checkpoint}: of kind {kind}, and no recurrent reasoner; a stage `recur` makes one")
    _check_weights(Path(checkpoint), read_config(checkpoint))
    reasoner: LatentReasoner = LatentReasoner.from_pretrained(checkpoint, dtype=torch.float32)
    reasoner.eval()
    return reasoner


def load_answering(checkpoint: str) -> LatentReasoner:
    """As `load_reasoner`, on a GPU where there is one."""
    reasoner = load_reasoner(checkpoint)
    if torch.cuda.is_available():
        reasoner.to("cuda")
    return reasoner


def _check_weights(directory: Path, config: LatentReasonerConfig) -> None:
    """Raises `EngineError` where they are not those that the config says: transformers would draw them by chance."""
    with torch.device("meta"):
        wanted = {name: list(weight.shape) for name, weight in LatentReasoner(config).state_dict().items()}
    there: dict[str, list[int]] = {}
    for path in directory.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            there |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    for name in sorted(wanted.keys() | there.keys()):
        if wanted.get(name) != there.get(name):
            told = (f"has {each[name]}" if name in each else "has none" for each in (there, wanted))
            raise EngineError(
                f"{directory}: {name}: the file of weights {next(told)}, the model of config.json {next(told)}; copy "
                "or save the checkpoint again"
            )


def parameters_of(config: LatentReasonerConfig) -> int:
    """How many trained numbers a reasoner has, without making one."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in LatentReasoner(config).parameters())
