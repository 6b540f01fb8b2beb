"""How large a model is, from its config alone: parameters by part, and what a forward pass multiplies."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from engines.checkpoint import with_bases
from engines.json_file import read_object
from pipelines.cost.assumed import IMAGE_PIXELS

if TYPE_CHECKING:
    from pipelines.sections import ModelSettings
    from selfrefine.build import BuildSpec

_TEXT = ("llama", "mistral", "qwen2", "qwen3", "qwen2_5_vl_text")
_BIASED = ("qwen2", "qwen2_5_vl_text")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class SizeUnknown(ValueError):
    """The sizes of a model cannot be told. The message is one line."""


@dataclass(frozen=True, slots=True)
class Vision:
    """A vision encoder. `matrices`: parameters that each patch is multiplied by; `projector`: those of what follows it
    into the language model, for each token that comes out. `merged`: patches that become one token."""

    parameters: int
    matrices: int
    projector: int
    projector_matrices: int
    layers: int
    hidden: int
    patch: int
    merged: int
    side: int | None
    near: int | None
    far_layers: int

    @property
    def pixels(self) -> int:
        """Of one image as it enters; assumed where the model does not fix it."""
        return self.side**2 if self.side else IMAGE_PIXELS

    @property
    def patches(self) -> int:
        """Of one image."""
        return self.pixels // self.patch**2

    @property
    def tokens(self) -> int:
        """That one image is for the language model."""
        return self.patches // self.merged

    def forward(self) -> float:
        """FLOPs of one image. `near` patches see each other in all layers but `far_layers`, where all do."""
        near = min(self.near or self.patches, self.patches)
        seen = self.far_layers * self.patches + (self.layers - self.far_layers) * near
        attention = 4 * self.hidden * self.patches * seen
        return 2 * self.patches * self.matrices + attention + 2 * self.tokens * self.projector_matrices


@dataclass(frozen=True, slots=True)
class Size:
    """A language model, with or without a vision encoder. Counts are of parameters.

    `matrices`: of the linear layers inside the decoder layers, which every token is multiplied by; `narrow`: the sum of
    their input and output widths, which LoRA multiplies by its rank.
    """

    layers: int
    hidden: int
    attention: int
    cached: int
    intermediate: int
    vocabulary: int
    matrices: int
    narrow: int
    norms: int
    tied: bool
    causal: bool
    dtype: str
    vision: Vision | None = None

    @property
    def language(self) -> int:
        """The language model's parameters."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return self.matrices + self.norms + embeddings

    @property
    def parameters(self) -> int:
        """All of them."""
        seen = self.vision.parameters + self.vision.projector if self.vision else 0
        return self.language + seen

    def lora(self, rank: int) -> int:
        """Parameters of adapters on all linear layers of the language model, and on LLaVA's projector."""
        projector = self.vision
        more = 0
        if projector is not None and projector.merged == 1:  # Qwen's merger lies inside of what LoRA leaves as it is
            more = projector.hidden + 3 * self.hidden
        return rank * (self.narrow + more)

    @property
    def cache_numbers(self) -> int:
        """Keys and values of one token, in all layers."""
        return 2 * self.layers * self.cached

    def forward(self, tokens: float, context: float, judged: float, share: float = 1.0) -> float:
        """FLOPs of the language model for `tokens` that see `context` tokens each; the head reads `judged` of them.

        `share`: of the layers. The hidden half of causal attention is counted as if it were computed.
        """
        layers = share * (2 * self.matrices + 4 * self.layers * self.attention * context)
        return tokens * layers + 2 * judged * self.hidden * self.vocabulary


def size_of(model: ModelSettings) -> Size:
    """Of the model a recipe starts from. Raises `SizeUnknown`."""
    if model.build is not None:
        return of_config(config_of_build(model.build))
    return size_at(model.adapter or str(model.path))


def size_at(checkpoint: str) -> Size:
    """Of a directory, or of a name on the hub; for an adapter that of its base. Raises `SizeUnknown`."""
    *_, root = with_bases(str(Path(checkpoint).expanduser()))
    return of_config(_config(root))


def _config(path: str) -> Mapping[str, Any]:
    file = Path(path).expanduser() / "config.json"
    if not file.is_file():
        file = _cached(path) or file
    if file.is_file():
        return read_object(file)
    if path in known():
        config: Mapping[str, Any] = known()[path]
        return config
    raise SizeUnknown(f"the size of {path} is not known: it is not on this machine; fetch it, or give its directory")


def _cached(name: str) -> Path | None:
    """The config of a hub model that was fetched before."""
    home = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "hub"
    folder = Path(home).expanduser() / f"models--{name.replace('/', '--')}" / "snapshots"
    return next(iter(sorted(folder.glob("*/config.json"))), None)


@cache
def known() -> dict[str, dict[str, Any]]:
    """Configs of public models, by their names on the hub."""
    text = (files("pipelines.cost") / "known.yaml").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return found


def of_config(config: Mapping[str, Any]) -> Size:
    """The sizes that a config of transformers describes. Raises `SizeUnknown` for a class that is not known here."""
    text = {**config, **config.get("text_config", {})}
    kind = str(text.get("model_type", "llama"))
    if config.get("model_type") in ("qwen2_5_vl", "llava") and kind == config.get("model_type"):
        kind = "qwen2_5_vl_text" if kind == "qwen2_5_vl" else "llama"
    try:
        if kind not in _TEXT:
            raise SizeUnknown(f"the size of a model of type {kind} is not known; known are {', '.join(_TEXT[:-1])}")
        vision = _vision(config, int(text["hidden_size"]))
        return _text(kind, text, config, vision)
    except KeyError as error:
        raise SizeUnknown(f"the size of the model is not known: its config says nothing of {error.args[0]}") from None


def _text(kind: str, text: Mapping[str, Any], config: Mapping[str, Any], vision: Vision | None) -> Size:
    hidden, layers, heads = (int(text[name]) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
    head = int(text.get("head_dim") or hidden // heads)
    query, cached = heads * head, int(text.get("num_key_value_heads") or heads) * head
    inner = int(text["intermediate_size"])
    matrices = 2 * hidden * query + 2 * hidden * cached + 3 * hidden * inner
    narrow = 2 * (hidden + query) + 2 * (hidden + cached) + 3 * (hidden + inner)
    biases = 0
    if kind in _BIASED:
        biases = query + 2 * cached
    elif text.get("attention_bias"):
        biases = query + 2 * cached + hidden
    if text.get("mlp_bias"):
        biases += 2 * inner + hidden
    norms = 2 * hidden + (2 * head if kind == "qwen3" else 0)
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))
    return Size(
        layers=layers,
        hidden=hidden,
        attention=query,
        cached=cached,
        intermediate=inner,
        vocabulary=int(text["vocab_size"]),
        matrices=layers * matrices,
        narrow=layers * narrow,
        norms=layers * (norms + biases) + hidden,
        tied=bool(tied),
        causal=bool(config.get("is_causal", text.get("is_causal", True))),
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
        vision=vision,
    )


def _vision(config: Mapping[str, Any], width: int) -> Vision | None:
    eye = config.get("vision_config")
    if not eye:
        return None
    if config.get("model_type") == "qwen2_5_vl":
        return _qwen_vision(eye, width)
    if config.get("model_type") == "llava":
        return _clip_vision(eye, width)
    raise SizeUnknown(f"the size of a model of type {config.get('model_type')} is not known")


def _qwen_vision(eye: Mapping[str, Any], width: int) -> Vision:
    hidden, layers, inner = (int(eye[name]) for name in ("hidden_size", "depth", "intermediate_size"))
    patch, merge = int(eye["patch_size"]), int(eye.get("spatial_merge_size", 2)) ** 2
    enter = int(eye.get("in_channels") or eye.get("in_chans") or 3) * int(eye.get("temporal_patch_size", 2)) * patch**2
    matrices = enter * hidden + layers * (4 * hidden**2 + 3 * hidden * inner)
    biases = layers * (4 * hidden + 2 * inner + hidden + 2 * hidden)
    merged = hidden * merge
    merger = merged**2 + merged * width
    return Vision(
        parameters=matrices + biases,
        matrices=matrices,
        projector=merger + merged + width + hidden,
        projector_matrices=merger,
        layers=layers,
        hidden=hidden,
        patch=patch,
        merged=merge,
        side=eye.get("image_size"),
        near=(int(eye.get("window_size", 112)) // patch) ** 2,
        far_layers=len(eye.get("fullatt_block_indexes", ())),
    )


def _clip_vision(eye: Mapping[str, Any], width: int) -> Vision:
    hidden, layers, inner = (int(eye[name]) for name in ("hidden_size", "num_hidden_layers", "intermediate_size"))
    patch, side = int(eye["patch_size"]), int(eye["image_size"])
    enter = 3 * patch**2 * hidden
    matrices = enter + layers * (4 * hidden**2 + 2 * hidden * inner)
    others = layers * (4 * hidden + inner + hidden + 4 * hidden) + ((side // patch) ** 2 + 2) * hidden + 4 * hidden
    projector = hidden * width + width**2
    return Vision(
        parameters=matrices + others,
        matrices=matrices,
        projector=projector + 2 * width,
        projector_matrices=projector,
        layers=layers,
        hidden=hidden,
        patch=patch,
        merged=1,
        side=side,
        near=None,
        far_layers=layers,
    )


def config_of_build(spec: BuildSpec) -> dict[str, Any]:
    """The config that `selfrefine.build` will write, in as much as sizes follow from it; all of its vocabulary."""
    kind = {"masked_llama": "llama"}.get(spec.architecture, spec.architecture)
    text = {
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.mlp_ratio * spec.hidden_size,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "vocab_size": spec.vocab_size,
        "tie_word_embeddings": spec.tie_word_embeddings,
    }
    config: dict[str, Any] = {"model_type": kind, "is_causal": spec.architecture != "masked_llama", "dtype": "float32"}
    if kind == "llama":
        return config | text
    eye = {
        "hidden_size": spec.vision_hidden_size,
        "intermediate_size": spec.mlp_ratio * spec.vision_hidden_size,
        "num_hidden_layers": spec.vision_layers,
        "depth": spec.vision_layers,
        "image_size": spec.image_size,
        "patch_size": spec.patch_size,
        "window_size": spec.image_size,
        "fullatt_block_indexes": list(range(spec.vision_layers)),
    }
    return config | {"text_config": text, "vision_config": eye}
