"""generate: the tuned model writes questions and answers for images that have none (arXiv 2510.10487, section 2.2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from engines.base import Decoding
from engines.settings import INERT, what_matters
from pipelines.errors import RunError
from pipelines.files import whole
from pipelines.stage import DataStageSettings, StageResult, over_default

if TYPE_CHECKING:
    from pipelines.context import StageContext
    from tasks.problem import Picture

PAIRS_FILE = "pairs.parquet"
WARN_UNPARSED = 0.1


class GenerateStage(DataStageSettings):
    """Proposes question–answer pairs for the unlabelled images; those that cannot be parsed stay, with a reason."""

    kind: Literal["generate"] = "generate"
    data: str = Field(
        "unlabelled", description="the data section whose images are asked about; its questions are not read"
    )
    per_image: int = Field(1, ge=1, description="pairs proposed for each image")
    decoding: Decoding = Field(Decoding(max_new_tokens=512, temperature=1.0, top_p=0.9))
    chunk: int = Field(
        256, ge=1, description="images per shard: what is done again at most after a kill", json_schema_extra=INERT
    )

    @field_validator("decoding", mode="before")
    @classmethod
    def _over_default(cls, value: Any) -> Any:
        return over_default(cls, "decoding", value)

    requires: ClassVar[tuple[str, ...]] = ("tune",)
    uses: ClassVar[tuple[str, ...]] = ("engine", "rounds")
    counts_rows: ClassVar[bool] = True

    def run(self, context: StageContext) -> StageResult:
        from selfrefine.triad.similarity import Lexical
        from selfrefine.triad.vqa import ImageQuestionAnswer

        rows = context.rows(self.data)
        pictures = rows.pictures[context.round - 1 :: context.recipe.rounds]
        if not pictures:
            raise RunError(f"data.{self.data} has no images for round {context.round}")
        prompts = context.settings("tune").prompts

        def work(chunk: Sequence[Picture]) -> Iterator[dict[str, Any]]:
            engine = context.engine(context.inputs["tune"] / "checkpoint")
            triad = ImageQuestionAnswer(engine, prompts, Lexical(), self.decoding)
            for picture, candidates in zip(chunk, triad.propose(chunk, self.per_image, context.seed), strict=True):
                for number, candidate in enumerate(candidates):
                    yield {
                        "id": f"{picture.id}/{number}",
                        "image": picture.path,
                        "image_id": picture.id,
                        "question": candidate.cause,
                        "answer": candidate.effect,
                        "raw": candidate.raw,
                        "reason": candidate.reason,
                    }

        key = {
            "settings": what_matters(self),
            "prompts": prompts.model_dump(mode="json"),
            "sections": context.sections,
            "checkpoint": context.handle("tune").manifest.fingerprint,
            "seed": context.seed,
            "pictures": [picture.id for picture in pictures],
        }
        shards = context.shards("shards", key)
        with context.progress(len(pictures), "proposing") as bar:
            shards.run(pictures, self.chunk, work, bar)
        pairs = _mark_duplicates(list(shards.rows()))
        _write(context, pairs)
        reasons = Counter(row["reason"] for row in pairs if row["reason"])
        usable = sum(row["reason"] is None for row in pairs)
        if not usable:
            top = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(3))
            raise RunError(f"no proposal could be used ({top}); tune longer, or look at {PAIRS_FILE}")
        return StageResult(
            len(pairs),
            usable,
            reasons,
            {"images": len(pictures), **{f"left out: {reason}": count for reason, count in rows.dropped}},
            list(_warnings(len(pairs), reasons)),
        )


def _warnings(proposed: int, reasons: Mapping[str, int]) -> Iterator[str]:
    from selfrefine.triad.templates import DROP_REASONS

    unparsed = sum(reasons.get(reason, 0) for reason in DROP_REASONS)
    if unparsed > WARN_UNPARSED * proposed:
        yield f"{unparsed / proposed:.0%} of the proposals could not be parsed: tune longer, or look at {PAIRS_FILE}"


def _mark_duplicates(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of equal pairs about one image the first stays."""
    from rewards.normalise import normalise

    seen: set[tuple[str, str, str]] = set()
    for row in rows:
        if row["reason"] is None:
            key = (row["image_id"], normalise(row["question"]), normalise(row["answer"]))
            if key in seen:
                row["reason"] = "duplicate"
            seen.add(key)
    return rows


def _write(context: StageContext, rows: list[dict[str, Any]]) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    names = ("id", "image", "image_id", "question", "answer", "raw", "reason")
    schema = arrow.schema([(name, arrow.string()) for name in names])
    with whole(context.directory / PAIRS_FILE) as path:
        parquet.write_table(arrow.Table.from_pylist(rows, schema=schema), path)
