"""The file that `launch.config` names: one of accelerate's, or DeepSpeed's own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from pipelines.errors import RunError
from pipelines.launching.settings import LaunchSettings, Strategy
from selfrefine.zero import OWNED


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
        text = Path(path).read_text(encoding="utf-8")
        data, is_json = _parsed(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise RunError(f"launch.config: {path}: neither YAML nor JSON ({said})") from None
    if isinstance(data, dict) and "distributed_type" in data:
        return _of_accelerate(path, data)
    if is_json and isinstance(data, dict) and isinstance(data.get("zero_optimization"), dict):
        return _of_deepspeed(path, data)
    raise RunError(
        f"launch.config: {path}: neither a file of `accelerate config` (it has no distributed_type) nor DeepSpeed's "
        "JSON (it has no zero_optimization)"
    )


def _parsed(text: str) -> tuple[Any, bool]:
    """What a text says, and whether it is JSON, which is not always YAML: 5e8 is a word there."""
    try:
        return json.loads(text), True
    except ValueError:
        return yaml.safe_load(text), False


def by_accelerate(settings: LaunchSettings) -> bool:
    """Whether the processes are started by `accelerate launch`, with a file of its own."""
    return settings.config is not None and read_config(settings.config).kind == "accelerate"


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
    if data["distributed_type"] == "DEEPSPEED":
        raise RunError(
            f"launch.config: {path}: DeepSpeed through accelerate's file is not done here; give launch.strategy: "
            "deepspeed, with DeepSpeed's own file or none"
        )
    strategy: Strategy = "fsdp" if data["distributed_type"] == "FSDP" else "ddp"
    # accelerate takes a file that does not say so for one of version 1.
    fsdp = data.get("fsdp_config")
    if strategy == "fsdp" and not (isinstance(fsdp, dict) and fsdp.get("fsdp_version") == 2):
        raise RunError(f"launch.config: {path}: asks for the old FSDP; give fsdp_config.fsdp_version: 2")
    if data.get("mixed_precision") not in (None, "no", False):  # an unquoted `no` is false in YAML
        raise RunError(
            f"launch.config: {path}: mixed_precision is said by the stage's precision; leave it out, or give `no`"
        )
    if (data.get("num_machines") or 1) != 1 or data.get("machine_rank"):
        raise RunError(
            f"launch.config: {path}: num_machines and machine_rank ask for several machines, and processes are started "
            "on this one alone; leave them out, and `trivium launch slurm RECIPE` writes a job"
        )
    return ConfigFile("accelerate", strategy)


def _of_deepspeed(path: str, data: dict[str, Any]) -> ConfigFile:
    stage = data["zero_optimization"].get("stage", 0)
    if stage not in (1, 2):
        raise RunError(
            f"launch.config: {path}: zero_optimization.stage: {stage}; give 1 or 2, or launch.strategy: fsdp without a "
            "file, which shares the weights out as well"
        )
    for key, own in OWNED.items():
        if key in data and not _leaves_open(data[key]):
            raise RunError(f"launch.config: {path}: {key} is said by the stage's {own}; leave it out, or give `auto`")
    return ConfigFile("deepspeed", "deepspeed")


def _leaves_open(value: Any) -> bool:
    """Whether a part of DeepSpeed's file says nothing: it is `auto`, or off."""
    return all(map(_leaves_open, value.values())) if isinstance(value, dict) else value in ("auto", False)
