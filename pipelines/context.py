"""What a running stage is given."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.settings import EngineSettings, LatentSettings, ReplicableSettings
from pipelines.errors import Interrupted
from pipelines.heartbeat import Heartbeat
from pipelines.metrics import Metrics
from pipelines.progress import Progress, progress, waiting
from pipelines.shards import Shards
from pipelines.stage import StageHandle
from pipelines.stop import Stop
from pipelines.turns import Turns, TurnTaking

if TYPE_CHECKING:
    from engines.base import Engine
    from pipelines.recipe import Recipe
    from tasks.problem import Rows


def derive_seed(seed: int, stage: str) -> int:
    """A stage's seed, in [0, 2³¹): from the run's and the stage's name without its arm, so that arms share it."""
    name = stage.partition("@")[0]
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big") >> 1


@dataclass(slots=True)
class StageContext:
    """The surroundings of one stage while it runs."""

    recipe: Recipe
    name: str
    directory: Path
    """The stage's own directory; it exists."""
    inputs: Mapping[str, Path]
    """Kind of an upstream stage -> its directory."""
    upstream: Sequence[StageHandle]
    """The finished stages that `inputs` names, in order; for a stage that gathers, all finished stages before it."""
    seed: int
    stop: Stop
    metrics: Metrics
    sections: Mapping[str, Any] = field(default_factory=dict)
    """What the stage depends on beside its settings and inputs: sections of the recipe, and the files they name."""
    original: Path | None = None
    """In an arm's copy of a stage: the directory of the finished shared stage, whose shards it may read."""
    launch: Callable[[StageContext, Progress], None] | None = None
    """Trains the stage in processes of their own, up to a checkpoint that is whole; None: this process trains."""
    for_training_alone: bool = False
    """True in a process that a driver started for the training of this stage."""
    on_work: Callable[[], None] = lambda: None
    """Called when something of the stage is done."""
    heartbeat: Heartbeat | None = None
    """Told what is done, for those who watch."""
    opened: list[Path] = field(default_factory=list)
    """Shard directories in use, which the runner keeps."""
    turns: Turns = field(init=False)
    _engine: Engine | None = None
    _checkpoint: str | None = None

    def __post_init__(self) -> None:
        self.turns = Turns(chunks_at_once(self.recipe.engine))

    def handle(self, kind: str) -> StageHandle:
        """The upstream stage behind `inputs[kind]`; its manifest's `fingerprint` belongs into keys of shards."""
        return next(each for each in self.upstream if each.directory == self.inputs[kind])

    @property
    def round(self) -> int:
        """The round this stage is part of, from 1."""
        return int(self.name.partition("@")[0].partition(".")[2] or 1)

    def settings(self, kind: str) -> Any:
        """The settings that the upstream stage behind `inputs[kind]` ran with."""
        from pipelines.stages import stage_classes

        return stage_classes()[kind].model_validate(self.handle(kind).manifest.source["settings"])

    def rows(self, data: str) -> Rows:
        """The rows of `data.<data>` of the recipe. Raises `TaskError`, and as `in_one_go` does."""
        with self.in_one_go(f"reading data `{data}`"):
            return self.recipe.data[data].load()

    @contextmanager
    def in_one_go(self, what: str) -> Iterator[None]:
        """Work inside has no point to resume from: it says what it is, and a stop ends it at once.

        Raises `Interrupted`.
        """
        try:
            with waiting(f"{self.name}: {what}"), self.stop.at_once():
                yield
        except KeyboardInterrupt:
            raise Interrupted(f"while {what}") from None

    def engine(self, checkpoint: str | Path) -> Engine:
        """The recipe's engine with these weights, opened on first use.

        One at a time: asking for another checkpoint closes the engine before, or gives it to the workers that are
        there. The runner closes the last one.
        """
        if self._engine is None or self._checkpoint != str(checkpoint):
            if isinstance(self._engine, TurnTaking):
                self._engine.reopen(str(checkpoint))
            else:
                self.close_engine()
                self._engine = _open(self.recipe.engine, checkpoint, self.turns)
            self._checkpoint = str(checkpoint)
        return self.heartbeat.counted(self._engine) if self.heartbeat else self._engine

    def close_engine(self) -> None:
        """Gives the engine's memory back, if one is open. A stage that goes on to train calls this first."""
        if self._engine is not None:
            self._engine.close()
            self._engine = self._checkpoint = None

    def shards(self, subdirectory: str, key: Mapping[str, Any]) -> Shards:
        """Shards in the stage's directory that stop politely. `key`: all that their rows depend on, JSON values."""
        path = self.directory / subdirectory
        self.opened.append(path)
        return Shards(path, key, self.stop, self.turns)

    @contextmanager
    def progress(self, total: int, what: str) -> Iterator[Progress]:
        """A bar on a terminal, plain lines elsewhere. `with context.progress(n, "asking") as bar: bar.advance(1)`."""
        with progress(total, f"{self.name}: {what}") as bar:
            watched = _Worked(bar, self.on_work)
            yield self.heartbeat.counting(watched, total, what) if self.heartbeat else watched

    def log(self, record: Mapping[str, Any]) -> None:
        """Appends a record to the run's `metrics.jsonl`. A record with the `step` of an earlier one replaces it."""
        self.metrics.append(self.name, record)


class _Worked:
    """A bar that calls `on_work` when it first advances."""

    def __init__(self, bar: Progress, on_work: Callable[[], None]) -> None:
        self._bar, self._on_work = bar, on_work
        self._worked = False

    def advance(self, count: int = 1) -> None:
        if not self._worked:
            self._worked = True
            self._on_work()
        self._bar.advance(count)

    def skip(self, count: int) -> None:
        self._bar.skip(count)


def chunks_at_once(settings: EngineSettings) -> int:
    """Chunks that a stage has in work: one, or enough for a worker to find another when it is done with its own."""
    return 2 * settings.replicas if isinstance(settings, ReplicableSettings) and settings.on_ray else 1


def _open(settings: EngineSettings, checkpoint: str | Path, turns: Turns) -> Engine:
    """The engine; that of reasoners lives with their method, above the engines."""
    if isinstance(settings, LatentSettings):
        from selfrefine.latent.engine import LatentEngine

        return LatentEngine(settings, str(checkpoint))
    from engines.open import open_engine

    engine = open_engine(settings, checkpoint)
    if turns.at_once == 1:
        return engine
    from engines.replicated.engine import ReplicatedEngine

    assert isinstance(engine, ReplicatedEngine)
    return TurnTaking(engine, turns)
