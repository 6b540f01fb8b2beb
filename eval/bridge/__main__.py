"""The harness's own command line, with our engines as the model `trivium`.

`python -m eval.bridge run --model trivium --model_args checkpoint=FOLDER,engine=transformers --apply_chat_template
--tasks TASK`. `--batch_size auto` leaves the batch to the engine.
"""

from __future__ import annotations

import sys

from engines.base import EngineError
from eval.bridge.harness import available
from tasks.problem import TaskError


def main() -> int:
    """Hands over to lm_eval's command line; a mistake is one line on standard error."""
    if line := available():
        print(line, file=sys.stderr)
        return 2
    from lm_eval.__main__ import cli_evaluate  # type: ignore

    import eval.bridge.model  # noqa: F401  # registers the model

    try:
        cli_evaluate()
    except (TaskError, EngineError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
