"""filter: rebuild each pair from its parts, score it, keep the best (arXiv 2510.10487, section 2.3, and beyond)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from engines.base import Decoding, EngineError
from engines.settings import INERT
from pipelines.errors import RunError
from pipelines.files import whole
from pipelines.sections import fingerprint
from pipelines.stage import Number, StageResult, StageSettings
from pipelines.stages.generate import PAIRS_FILE
from selfrefine.triad.measure import MeasureSettings

if TYPE_CHECKING:
    from pipelines.context import StageContext
    from pipelines.recipe import Recipe
    from pipelines.shards import Shards
    from selfrefine.triad.measure import Pair
    from tasks.problem import Picture

TRIADS_FILE = "triads.parquet"
SCORE_PREFIX = "score."
COMBINED = "combined"
"""The column of several scores together, beside those of the single ones."""
_SHARDS = "measured"


class Select(BaseModel):
    """Which measured pairs are kept. Changing it runs the filter again without the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    score: str | Sequence[str] = Field(
        "consistency", description="one score, or several: the mean of their ranks in a type"
    )
    fraction: float = Field(0.2, ge=0, le=1, description="kept of each type")
    sizes: Literal["fraction", "original"] = Field(
        "fraction", description="original, in an arm: as many of each type as the chain without arms kept"
    )
    lowest: bool = Field(False, description="keep the lowest instead: a control")
    gates: Mapping[str, float | tuple[float, float]] = Field(
        {}, description="score -> least value that a kept pair must have, or [least, most]"
    )
    quota: float | None = Field(None, gt=0, le=1, description="largest share of one type in what is kept")

    @field_validator("score", "gates")
    @classmethod
    def _known(cls, value: Any) -> Any:
        from selfrefine.triad.score import unknown_score

        for name in [value] if isinstance(value, str) else value:
            if complaint := unknown_score(name):
                raise ValueError(complaint)
        return value

    @field_validator("score")
    @classmethod
    def _some(cls, score: Any) -> Any:
        if not score:
            raise ValueError("names no score")
        return score

    @field_validator("gates", mode="before")
    @classmethod
    def _ranges(cls, gates: Any) -> Any:
        for name, gate in gates.items() if isinstance(gates, Mapping) else ():
            ends = gate if isinstance(gate, list | tuple) else [gate]
            if len(ends) not in (1, 2) or not all(isinstance(end, int | float) for end in ends) or gate == ends[:1]:
                raise ValueError(f"{name}: give the least value, or [least, most], not {gate!r}")
            if ends[0] > ends[-1]:
                raise ValueError(f"{name}: no value is at least {ends[0]:g} and at most {ends[1]:g}")
        return gates

    def passes(self, values: Mapping[str, float | None]) -> bool:
        """Whether a pair with these scores gets through all gates. A score that is missing does not."""
        for name, gate in self.gates.items():
            least, most = gate if isinstance(gate, tuple) else (gate, math.inf)
            value = values[name]
            if value is None or not least <= value <= most:
                return False
        return True

    @property
    def scores(self) -> list[str]:
        """The names that are ranked by."""
        return [self.score] if isinstance(self.score, str) else list(self.score)


class FilterStage(StageSettings):
    """Measures every proposed pair with the model that wrote it, then keeps some by their scores."""

    kind: Literal["filter"] = "filter"
    measure: MeasureSettings = MeasureSettings()
    similarity: str = Field("auto", description="auto, bundled, lexical, or a sentence-transformer directory")
    max_new_tokens: int = Field(512, ge=1, description="of a rebuilt question or answer")
    select: Select = Field(Select())
    audit: bool = Field(False, description="compare with true answers where the task knows them; changes nothing else")
    chunk: int = Field(
        256, ge=1, description="pairs per shard: what is done again at most after a kill", json_schema_extra=INERT
    )

    requires: ClassVar[tuple[str, ...]] = ("tune", "generate")
    uses: ClassVar[tuple[str, ...]] = ("engine",)
    counts_rows: ClassVar[bool] = True

    @property
    def reads_original(self) -> bool:
        return self.select.sizes == "original"

    def check(self, recipe: Recipe) -> Iterator[str]:
        try:
            self.versions()
        except EngineError as error:
            yield f"{self.name}.{error}"

    def versions(self) -> Mapping[str, Number]:
        from selfrefine.triad.similarity import similarity_name

        directory = Path(self.similarity).expanduser()
        files = {"similarity files": fingerprint(directory)} if directory.is_dir() else {}
        return {"similarity": similarity_name(self.similarity), **files}

    def run(self, context: StageContext) -> StageResult:
        from selfrefine.triad.score import all_scores, combine
        from selfrefine.triad.select import accept_consistent

        rows = _read(context)
        pairs = [_pair(row) for row in rows if row["reason"] is None]
        measured = list(self._measured(context, pairs).rows())
        types = [row["type"] for row in measured]
        scores = all_scores(measured, context.seed)
        ranked = combine([scores[name] for name in self.select.scores], types)
        if len(self.select.scores) > 1:
            scores[COMBINED] = list(ranked)
        if self.select.lowest:
            ranked = [None if value is None else -value for value in ranked]
        sizes = self._sizes(context, types)
        try:
            reasons = accept_consistent(
                ranked,
                types,
                [pair.id for pair in pairs],
                sizes,
                context.seed,
                passes=[self.select.passes({n: scores[n][i] for n in self.select.gates}) for i in range(len(pairs))],
                quota=self.select.quota,
            )
        except ValueError as error:
            raise RunError(f"{error}") from None
        triads = [
            {
                **row,
                "type": kind,
                **{
                    name: measure[name] for name in ("rebuilt_question", "rebuilt_answer", "sim_question", "sim_answer")
                },
                **{SCORE_PREFIX + name: values[i] for name, values in scores.items()},
                "kept": reason is None,
                "reason": reason,
                "truth": _truth(context, row) if self.audit else None,
            }
            for i, (row, kind, measure, reason) in enumerate(
                zip((r for r in rows if r["reason"] is None), types, measured, reasons, strict=True)
            )
        ]
        _write(context, triads, list(scores))
        return StageResult(
            len(triads),
            sum(triad["kept"] for triad in triads),
            Counter(reason for reason in reasons if reason),
            self._numbers(triads, types),
            list(self._warnings(sizes, types)),
        )

    def _sizes(self, context: StageContext, types: Sequence[str]) -> Mapping[str, int]:
        """The fraction of each type, or the number that the original kept of it."""
        from selfrefine.triad.select import share_of_each

        if not self.reads_original:
            return share_of_each(types, self.select.fraction)
        return Counter(row["type"] for row in read_kept(context.inputs["original"]))

    def _measured(self, context: StageContext, pairs: Sequence[Pair]) -> Shards:
        """The measurements: the original's where an arm only selects otherwise, else made here, shard by shard."""
        key = {
            "measure": self.measure.model_dump(mode="json"),
            "versions": dict(self.versions()),
            "max_new_tokens": self.max_new_tokens,
            "sections": context.sections,
            "checkpoint": context.handle("tune").manifest.fingerprint,
            "pairs": context.handle("generate").manifest.fingerprint,
            "images": context.handle("generate").manifest.digest,  # its pairs name the images, whose content may change
            "seed": context.seed,
        }
        if context.original is not None:
            from pipelines.shards import Shards

            original = Shards(context.original / _SHARDS, key)
            if original.complete:
                return original
        shards = context.shards(_SHARDS, key)
        with context.progress(len(pairs), "measuring") as bar:
            shards.run(pairs, self.chunk, self._worker(context, pairs), bar)
        return shards

    def _worker(self, context: StageContext, pairs: Sequence[Pair]) -> Any:
        """A function that measures a chunk; sentence model and engine are opened when the first chunk is missing."""
        from functools import cache

        from selfrefine.triad.measure import Pool, measure
        from selfrefine.triad.similarity import open_similarity
        from selfrefine.triad.vqa import ImageQuestionAnswer

        checkpoint = context.inputs["tune"] / "checkpoint"
        # Opened when a chunk is missing, and only then: a finished measuring loads no model.
        pool_once = cache(lambda: Pool(pairs, self._nearest(context, pairs, str(checkpoint))))
        open_once = cache(open_similarity)
        prompts = context.settings("tune").prompts

        def work(chunk: Sequence[Pair]) -> Iterator[Mapping[str, object]]:
            similarity = open_once(self.similarity)
            pool = pool_once()
            engine = context.engine(checkpoint)
            triad = ImageQuestionAnswer(engine, prompts, similarity, Decoding(self.max_new_tokens))
            yield from measure(chunk, pool, triad, similarity, self.measure, context.seed)

        return work

    def _nearest(self, context: StageContext, pairs: Sequence[Pair], checkpoint: str) -> dict[str, list[Picture]]:
        from selfrefine.triad.neighbours import embed, nearest

        if self.measure.edge_images < 2 or self.measure.edge_negatives != "nearest":
            return {}
        pictures = list({pair.picture.id: pair.picture for pair in pairs}.values())
        vectors = embed(pictures, checkpoint, trust_remote_code=context.recipe.model.trust_remote_code)
        found = nearest(vectors, self.measure.edge_images - 1)
        return {picture.id: [pictures[i] for i in indices] for picture, indices in zip(pictures, found, strict=True)}

    def _warnings(self, sizes: Mapping[str, int], types: Sequence[str]) -> Iterator[str]:
        for kind, count in sorted(Counter(types).items()):
            if self.select.fraction and not self.reads_original and not sizes[kind]:
                yield f"of {count} pairs of type {kind}, a fraction of {self.select.fraction:g} keeps none"

    def _numbers(self, triads: Sequence[Mapping[str, Any]], types: Sequence[str]) -> dict[str, Number]:
        from selfrefine.triad.similarity import similarity_name

        numbers: dict[str, Number] = {"similarity": similarity_name(self.similarity)}
        numbers |= {f"kept of {kind}": 0 for kind in sorted(set(types))}
        for triad in triads:
            if triad["kept"]:
                numbers[f"kept of {triad['type']}"] = int(numbers[f"kept of {triad['type']}"] or 0) + 1
        for kept, word in ((True, "kept"), (False, "dropped")):
            known = [t["truth"] for t in triads if t["kept"] == kept and t["truth"] is not None]
            if known:
                numbers[f"precision of {word}"] = sum(known) / len(known)
        return numbers


def read_kept(directory: Path) -> list[dict[str, Any]]:
    """The kept triads of a finished filter stage, in order."""
    import pyarrow.parquet as parquet

    rows: list[dict[str, Any]] = parquet.read_table(directory / TRIADS_FILE, filters=[("kept", "==", True)]).to_pylist()
    return rows


def _pair(row: Mapping[str, Any]) -> Pair:
    from selfrefine.triad.measure import Pair
    from tasks.problem import Picture

    return Pair(row["id"], Picture(row["image_id"], row["image"]), row["question"], row["answer"])


def _truth(context: StageContext, row: Mapping[str, Any]) -> bool | None:
    """Whether the answer is right; False for a question that the image makes meaningless; None where unknown."""
    from rewards.normalise import normalise
    from tasks.registry import truth

    task = context.recipe.data[context.settings("generate").data].task
    found = truth(task, row["question"], row["image_id"])
    return None if found is None else normalise(found) == normalise(row["answer"])


def _read(context: StageContext) -> list[dict[str, Any]]:
    import pyarrow.parquet as parquet

    rows: list[dict[str, Any]] = parquet.read_table(context.inputs["generate"] / PAIRS_FILE).to_pylist()
    return rows


def _write(context: StageContext, triads: Sequence[Mapping[str, Any]], scores: Sequence[str]) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    texts = (
        "id",
        "image",
        "image_id",
        "type",
        "question",
        "answer",
        "raw",
        "rebuilt_question",
        "rebuilt_answer",
        "reason",
    )
    numbers = ("sim_question", "sim_answer", *(SCORE_PREFIX + name for name in scores))
    schema = arrow.schema(
        [(name, arrow.string()) for name in texts]
        + [(name, arrow.float64()) for name in numbers]
        + [("kept", arrow.bool_()), ("truth", arrow.bool_())]
    )
    with whole(context.directory / TRIADS_FILE) as path:
        parquet.write_table(arrow.Table.from_pylist(list(triads), schema=schema), path)
