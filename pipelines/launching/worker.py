"""One process of a training: `python -m pipelines.launching.worker RUN STAGE`, started by a launcher.

It opens the stage as the driver did, trains it together with the others, and leaves the rest to the driver.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from pathlib import Path

from pipelines.context import StageContext
from pipelines.errors import Interrupted, RunError, explain
from pipelines.launching.command import DRIVEN, WORLD
from pipelines.launching.exchange import Exchange
from pipelines.manifest import ATTEMPT_FILE
from pipelines.plan import legs, plan
from pipelines.recipe import load_recipe
from pipelines.runner import RECIPE_FILE, context_of
from pipelines.stage import StageSettings
from pipelines.stop import Stop
from pipelines.training import SAVES, TookPart
from selfrefine.training import is_first, processes, rank


class _AskedByFile(Stop):
    """Someone asked the driver to stop, and it passed that on."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    @property
    def requested(self) -> bool:  # type: ignore[override]
        return self._exchange.stop_is_asked()


def main(root: Path, name: str) -> int:
    """Takes part in the training of the stage `name`, its label included; returns the exit code."""
    exchange = Exchange(root / name / SAVES)
    if DRIVEN in os.environ:
        _leave_with_the_driver()
    try:
        _check_number()
        settings, context = _opened(root, name, _AskedByFile(exchange))
        settings.run(context)
    except TookPart:
        return 0
    except Interrupted as stopped:
        if is_first():
            exchange.say_stopped(str(stopped))
        return 0
    except Exception as error:
        line = explain(error)
        if line is None:
            traceback.print_exc()
            log = exchange.log if WORLD in os.environ else exchange.log_of(rank())  # one launcher's, or its own
            said = " ".join(str(error).split())[:300]
            line = f"process {rank()} of {processes()} failed with {type(error).__name__}: {said}; see {log}"
        exchange.fail(rank(), line)
        return 1
    raise AssertionError(f"{name} ended without a training")


def _opened(root: Path, name: str, stop: Stop) -> tuple[StageSettings, StageContext]:
    """The stage as the driver has opened it. Raises `RunError` where the driver has not, or opened another."""
    steps = {each.leg.label + each.link.name: each for each in plan(legs(load_recipe(root / RECIPE_FILE), root))}
    step = steps.get(name)
    attempt = root / name / ATTEMPT_FILE
    begun = json.loads(attempt.read_text(encoding="utf-8")) if attempt.is_file() else {}
    if step is None or begun.get("digest") != step.digest:
        raise RunError(f"{root / name}: is not being trained with what is here now; start it by `trivium run`")
    return step.link.settings, context_of(step, steps, stop, for_training_alone=True)


def _check_number() -> None:
    """Raises `RunError` where the launcher started more or fewer processes than asked for."""
    asked, found = int(os.environ.get(WORLD, processes())), processes()
    if asked != found:
        raise RunError(
            f"{asked} processes were asked for and the launcher started {found}; without GPUs that is what `accelerate "
            "launch` does: leave out launch.config"
        )


def _leave_with_the_driver() -> None:
    """Ends this process when the driver is gone, however it went: the driver holds the other end of the input."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
