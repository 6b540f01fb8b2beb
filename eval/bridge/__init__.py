"""The bridge to EleutherAI's lm-evaluation-harness (extra `lm-eval`): its tasks on our engines, and its result files.

`run` puts one of its tasks to an engine, `read_results` reads a folder that it wrote. `python -m eval.bridge` is its
own command line, with our engines as the model `trivium`.
"""

from eval.bridge.files import read_results
from eval.bridge.harness import available, run
from eval.bridge.result import PREFIX, BridgeResult

__all__ = ["PREFIX", "BridgeResult", "available", "read_results", "run"]
