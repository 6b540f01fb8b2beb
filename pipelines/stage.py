"""What a stage is: settings that can run.

A stage module defines one subclass of `StageSettings` and imports nothing heavy; torch and its kin are imported inside
`run`. The recipe schema is the union of these classes, so a stage's fields are its documentation in the recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from engines.settings import INERT
from pipelines.launching.settings import LaunchSettings, Strategy

if TYPE_CHECKING:
    from pipelines.context import StageContext
    from pipelines.manifest import Manifest
    from pipelines.recipe import Recipe

Number = float | int | str | None


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a stage says it did. `numbers` and `warnings` are shown by `trivium runs show` and the report.

    In a row-wise stage (one with `counts_rows`), `rows_in == rows_out + sum(dropped.values())`: the runner checks it.
    """

    rows_in: int | None = None
    rows_out: int | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    numbers: Mapping[str, Number] = field(default_factory=dict)
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class StageHandle:
    """A finished stage, seen by a later one. `seed` is the run's seed, which differs between the arms of `seeds:`."""

    name: str
    kind: str
    directory: Path
    manifest: Manifest
    seed: int

    @property
    def arm(self) -> str | None:
        """The part after `@` of the name."""
        return self.name.partition("@")[2] or None


class StageSettings(BaseModel):
    """Base of all stages. A subclass adds `kind: Literal[NAME] = NAME`, its fields and `run`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    """What the stage does; each subclass narrows it to one literal with that default."""
    name: str | None = None
    """How overrides and directories call the stage; the kind unless given."""

    requires: ClassVar[tuple[str, ...]] = ()
    """Kinds of earlier stages whose outputs `run` reads: each is the latest in the same arm, else the shared one."""
    otherwise: ClassVar[str] = ""
    """What to do where one of them is not there, for the line that says so."""
    accepts: ClassVar[tuple[str, ...]] = ()
    """Like `requires`, but may be absent: what a later round takes over from the round before."""
    uses: ClassVar[tuple[str, ...]] = ()
    """Sections of the recipe that the outputs depend on: `model`, `engine`, `data.labelled`."""
    gathers: ClassVar[bool] = False
    """True for a stage that looks at all before it (`context.upstream`); it runs once, after all rounds and arms."""
    combines_seeds: ClassVar[bool] = False
    """True for a gathering stage that runs once for all `seeds:` together, on the finished stages of each."""
    counts_rows: ClassVar[bool] = False
    """True when each row that comes in either goes out or is dropped for a counted reason."""

    strategies: ClassVar[tuple[Strategy, ...]] = ("ddp",)
    """How a training of it may be shared out to processes."""

    @property
    def sections(self) -> tuple[str, ...]:
        """All that the outputs depend on: `uses`, and what the settings themselves name."""
        return self.uses

    def versions(self) -> Mapping[str, Number]:
        """What the outputs depend on that no setting names: the version of a reward, a model chosen by `auto`."""
        return {}

    def run(self, context: StageContext) -> StageResult:
        """Reads `context.inputs`, writes into `context.directory`. Raises `Interrupted` where `context.stop` asks."""
        raise NotImplementedError

    @property
    def reads_original(self) -> bool:
        """True for a copy in an arm that also reads, as the input `original`, what the stage it copies has written."""
        return False

    def check(self, recipe: Recipe) -> Iterator[str]:
        """What is wrong with this stage in this recipe, one line each, found without torch and before anything runs."""
        yield from ()


def over_default(model: type[BaseModel], field: str, value: Any) -> Any:
    """A mapping that sets some keys of a dataclass field, completed by the field's own default and not the class's."""
    default = asdict(model.model_fields[field].default)
    return {**default, **value} if isinstance(value, Mapping) else value


class DataStageSettings(StageSettings):
    """Base of stages that read one data section: a change of another one is no reason to run them again."""

    data: str

    @property
    def sections(self) -> tuple[str, ...]:
        return (*self.uses, f"data.{self.data}")


class TrainingSettings(DataStageSettings):
    """Base of stages that train with TRL. `trl:` passes options on to its config, checked before anything runs."""

    trl: Mapping[str, Any] = Field({}, description="further options of TRL's config, by their names there")
    launch: LaunchSettings | None = Field(
        None, description="processes of this training; the recipe's `launch` unless given", json_schema_extra=INERT
    )

    trl_config: ClassVar[str] = "SFTConfig"
    """The config class that `trl` is checked against."""
    owned_trl_keys: ClassVar[frozenset[str]] = frozenset()
    """Options that the stage sets itself, so that `trl` may not."""
