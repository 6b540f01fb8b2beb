"""TRL's GRPO trainer, without vLLM until something is to sample by it.

TRL imports vLLM together with the trainer wherever it is installed. That takes longer than all other imports of a
training, in each of its processes, and most trainings sample by the model itself.
"""

from __future__ import annotations

import importlib

from trl import import_utils

from selfrefine.instead import instead

with instead(import_utils, "is_vllm_available", lambda min_version=None: False):
    from trl.trainer import grpo_trainer

GRPOTrainer = grpo_trainer.GRPOTrainer


def with_vllm() -> None:
    """Imports vLLM into TRL, whose trainer can sample by it from then on; once is enough."""
    from trl.generation import vllm_client, vllm_generation

    if not hasattr(vllm_generation, "LLM"):
        for module in (vllm_client, vllm_generation, importlib.import_module("trl.generation")):
            importlib.reload(module)
        grpo_trainer.VLLMGeneration = vllm_generation.VLLMGeneration
