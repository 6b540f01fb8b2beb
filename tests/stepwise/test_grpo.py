"""TRL's trainer comes without vLLM, and samples by it once it is asked to."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

SCRIPT = """
import sys
from selfrefine.stepwise import reinforce, trainer
from selfrefine.diffusion import trainer
assert not {"vllm", "ray"} & sys.modules.keys()

from selfrefine.stepwise import colocate, grpo
from trl.generation import VLLMGeneration, vllm_client
assert VLLMGeneration is grpo.grpo_trainer.VLLMGeneration and issubclass(colocate.Colocated, VLLMGeneration)
assert VLLMGeneration.__init__.__globals__["LLM"] is sys.modules["vllm"].LLM
grpo.with_vllm()
assert vllm_client.get_ip and VLLMGeneration is grpo.grpo_trainer.VLLMGeneration
"""


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_is_imported_where_it_samples() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
