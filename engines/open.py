"""Opens the engine that a recipe names."""

from __future__ import annotations

from pathlib import Path

from engines.base import Engine, EngineError
from engines.settings import (
    DiffusionSettings,
    EndpointSettings,
    EngineSettings,
    LatentSettings,
    ReplicableSettings,
    VllmSettings,
)


def open_engine(settings: EngineSettings, checkpoint: str | Path) -> Engine:
    """The engine of `settings` with the weights of `checkpoint`. Raises `EngineError` with the way out."""
    if isinstance(settings, ReplicableSettings) and settings.on_ray:
        from engines.replicated.engine import ReplicatedEngine

        return ReplicatedEngine(settings, str(checkpoint))
    if isinstance(settings, VllmSettings):
        from engines.vllm import VllmEngine

        return VllmEngine(settings, str(checkpoint))
    if isinstance(settings, EndpointSettings):
        from engines.endpoint import EndpointEngine

        return EndpointEngine(settings, str(checkpoint))
    if isinstance(settings, DiffusionSettings):
        from engines.diffusion import DiffusionEngine

        return DiffusionEngine.open(settings, str(checkpoint))
    if isinstance(settings, LatentSettings):
        raise EngineError("a recurrent reasoner is no language model; selfrefine.latent.engine.LatentEngine opens it")
    from engines.transformers import TransformersEngine

    return TransformersEngine.open(settings, str(checkpoint))
