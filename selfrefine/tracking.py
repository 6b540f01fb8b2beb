"""The numbers of a training, sent to the trackers that a user already has, by transformers' own callbacks."""

from __future__ import annotations

import importlib.util
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Tracker = Literal["trackio", "wandb", "tensorboard"]
PROJECT = "trivium"
"""Where wandb and trackio put runs, unless their own settings say otherwise."""


@dataclass(frozen=True, slots=True)
class Tracking:
    """Where numbers go. `name`: of the training, as trackers show it; `folder`: what they keep on this machine."""

    to: Sequence[Tracker]
    name: str
    folder: Path


def missing_tracker(tracker: Tracker) -> str | None:
    """What to install before numbers can go there, or None; nothing is imported."""
    if importlib.util.find_spec(tracker) is None:
        return f"{tracker} is not installed; pip install {tracker}"
    return None


def track(trainer: Any, tracking: Tracking, step: int) -> None:
    """Makes the first process of a training report to the trackers from `step` on, where it goes on; 0: from the start.

    What a killed training reported beyond `step` is replaced where the tracker can, which wandb cannot.
    """
    from transformers.integrations import TensorBoardCallback, TrackioCallback

    trainer.args.report_to, trainer.args.run_name = list(tracking.to), tracking.name
    tracking.folder.mkdir(parents=True, exist_ok=True)
    for tracker in tracking.to:
        if tracker == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            trainer.add_callback(TensorBoardCallback(SummaryWriter(str(tracking.folder), purge_step=step + 1)))
        elif tracker == "wandb":
            trainer.add_callback(_wandb(tracking.folder, goes_on=step > 0))
        else:
            trainer.args.project = os.environ.get("TRACKIO_PROJECT", PROJECT)
            trainer.add_callback(TrackioCallback())


def _wandb(folder: Path, goes_on: bool) -> Any:
    """transformers' callback, for a run that has its own id, so that a training that goes on goes on in it."""
    from transformers.integrations import WandbCallback

    kept = folder / "wandb-id.txt"
    if not (goes_on and kept.is_file()):
        kept.write_text(secrets.token_hex(4), encoding="utf-8")
    own = kept.read_text(encoding="utf-8")

    class _Wandb(WandbCallback):  # type: ignore[misc]
        def setup(self, args: Any, *others: Any, **kwargs: Any) -> None:
            # wandb reads its environment once in a process, which may train several stages.
            self._wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                dir=os.environ.get("WANDB_DIR", str(folder)),
                name=args.run_name,
                id=own,
                resume="allow",
            )
            super().setup(args, *others, **kwargs)

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            super().on_train_end(*args, **kwargs)
            self._wandb.finish()  # or the next stage would report to the same run

    return _Wandb()
