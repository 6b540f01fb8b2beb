"""The file that `launch.config` names: one of accelerate's, or DeepSpeed's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from pipelines.errors import RunError
from pipelines.launching.settings import LaunchSettings, Strategy

_STRATEGIES: dict[str, Strategy] = {"FSDP": "fsdp", "DEEPSPEED": "deepspeed"}
_OF_DEEPSPEED = ("zero_optimization", "train_micro_batch_size_per_gpu", "train_batch_size", "gradient_clipping")


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What is in it, as far as a plan has to know."""

    kind: Literal["accelerate", "deepspeed"]
    strategy: Strategy


def read_config(path: str) -> ConfigFile:
    """Tells the two kinds of file apart by what is in them.

    Raises `RunError` where it is neither, or asks for what is not done here.
    """
    if not Path(path).is_file():
        raise RunError(f"launch.config: {path}: no such file; `accelerate config --config_file FILE` writes one")
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))  # JSON is YAML as well
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise RunError(f"launch.config: {path}: neither YAML nor JSON ({said})") from None
    if isinstance(data, dict) and "distributed_type" in data:
        return _of_accelerate(path, data)
    if isinstance(data, dict) and any(key in data for key in _OF_DEEPSPEED):
        return _of_deepspeed(path, data)
    raise RunError(
        f"launch.config: {path}: neither a file of `accelerate config` (it has no distributed_type) nor one of "
        "DeepSpeed's (it has no zero_optimization)"
    )


def strategy_of(settings: LaunchSettings) -> Strategy:
    """The strategy that a block asks for, in itself or by its file. Raises `RunError` where the two differ."""
    if settings.config is None:
        return settings.strategy
    file = read_config(settings.config)
    if file.kind == "deepspeed" and settings.strategy != "deepspeed":
        raise RunError(f"launch.config: {settings.config} is a file of DeepSpeed's; give launch.strategy: deepspeed")
    if settings.strategy not in ("ddp", file.strategy):
        raise RunError(
            f"launch.strategy: {settings.strategy}, and {settings.config} asks for {file.strategy}; "
            "leave out one of them"
        )
    return file.strategy


def _of_accelerate(path: str, data: dict[str, Any]) -> ConfigFile:
    strategy = _STRATEGIES.get(str(data["distributed_type"]), "ddp")
    # accelerate takes a file that does not say so for one of version 1.
    if strategy == "fsdp" and (data.get("fsdp_config") or {}).get("fsdp_version", 1) != 2:
        raise RunError(f"launch.config: {path}: asks for the old FSDP; give fsdp_config.fsdp_version: 2")
    return ConfigFile("accelerate", strategy)


def _of_deepspeed(path: str, data: dict[str, Any]) -> ConfigFile:
    stage = (data.get("zero_optimization") or {}).get("stage", 0)
    if stage == 3:
        raise RunError(
            f"launch.config: {path}: ZeRO-3, which shares the weights out as well, is not done here; give "
            "zero_optimization.stage: 2, or launch.strategy: fsdp without a file"
        )
    return ConfigFile("deepspeed", "deepspeed")
