"""The triads of a filter stage: what was kept, what was dropped and why, and a few of each to look at."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.stats import auroc, clopper_pearson
from pipelines.stages.filter import SCORE_PREFIX, TRIADS_FILE

BINS = 8

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Share:
    """`right` of `known` rows are right; the interval (exact binomial) takes rows as independent."""

    right: int
    known: int

    @property
    def value(self) -> float | None:
        return self.right / self.known if self.known else None

    @property
    def interval(self) -> tuple[float, float] | None:
        return clopper_pearson(self.right, self.known) if self.known else None


@dataclass(frozen=True, slots=True)
class Audit:
    """Pairs against true labels, which nothing but this audit sees. `auroc`: score -> how well it ranks, or None."""

    kept: Share
    dropped: Share
    auroc: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class FilterMeans:
    """One filter over several runs: means of how many pairs it keeps and, where audited, of how right they are."""

    name: str
    count: float
    kept: float | None
    dropped: float | None
    auroc: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class TypeCount:
    """Rows of one type of question."""

    name: str
    total: int
    kept: int


@dataclass(frozen=True, slots=True)
class Triads:
    """All rows of one filter stage. `scores` are the columns that hold at least one number."""

    rows: Sequence[Row]
    scores: Sequence[str]

    @property
    def kept(self) -> list[Row]:
        return [row for row in self.rows if row["kept"]]

    @property
    def dropped(self) -> list[Row]:
        return [row for row in self.rows if not row["kept"]]

    @property
    def reasons(self) -> dict[str, int]:
        """Dropped rows by reason, the commonest first."""
        return dict(Counter(str(row["reason"]) for row in self.dropped).most_common())

    @property
    def types(self) -> list[TypeCount]:
        totals: Counter[str] = Counter(str(row["type"]) for row in self.rows)
        kept: Counter[str] = Counter(str(row["type"]) for row in self.kept)
        return [TypeCount(name, total, kept[name]) for name, total in totals.most_common()]

    @property
    def audit(self) -> Audit | None:
        """None where the run audited nothing."""
        known = [row for row in self.rows if row.get("truth") is not None]
        if not known:
            return None
        return Audit(
            kept=_share([row for row in known if row["kept"]]),
            dropped=_share([row for row in known if not row["kept"]]),
            auroc={score: _auroc(known, score) for score in self.scores},
        )

    def values(self, score: str, kept: bool) -> list[float]:
        """The known values of one score among the kept, or the dropped, rows."""
        return [value for row in self.rows if row["kept"] == kept and (value := row[SCORE_PREFIX + score]) is not None]

    def truth_by_score(self, score: str) -> Iterator[tuple[float, Share]]:
        """(mean score, share of right pairs) in at most `BINS` groups of equal size, from low to high scores.

        Rows of equal score stay in one group, so there may be fewer.
        """
        column = SCORE_PREFIX + score
        ranked = sorted(
            (row for row in self.rows if row.get("truth") is not None and row[column] is not None),
            key=lambda row: float(row[column]),
        )
        group: list[Row] = []
        for index, row in enumerate(ranked):
            group.append(row)
            last = index + 1 == len(ranked)
            if last or (len(group) * BINS >= len(ranked) and ranked[index + 1][column] != row[column]):
                yield sum(float(each[column]) for each in group) / len(group), _share(group)
                group = []

    def gallery(self, kept: bool, count: int, score: str | None) -> list[Row]:
        """Up to `count` rows to look at: turn about over types (kept) or reasons (dropped), best score first."""
        groups: dict[str, list[Row]] = defaultdict(list)
        for row in self._ranked(self.kept if kept else self.dropped, score):
            groups[str(row["type"] if kept else row["reason"])].append(row)
        queues = [list(groups[name]) for name in sorted(groups, key=lambda name: (-len(groups[name]), name))]
        chosen: list[Row] = []
        while len(chosen) < count and any(queues):
            chosen += [queue.pop(0) for queue in queues if queue][: count - len(chosen)]
        return chosen

    def _ranked(self, rows: Sequence[Row], score: str | None) -> list[Row]:
        def key(row: Row) -> tuple[float, str]:
            value = row[SCORE_PREFIX + score] if score is not None else None
            return (float("inf") if value is None else -float(value), str(row["id"]))

        return sorted(rows, key=key)


def read_triads(directory: Path) -> Triads | None:
    """The triads of a filter stage's directory; None where it holds none."""
    path = directory / TRIADS_FILE
    if not path.is_file():
        return None
    import pyarrow.parquet as parquet

    rows = parquet.read_table(path).to_pylist()
    names = [name.removeprefix(SCORE_PREFIX) for name in (rows[0] if rows else {}) if name.startswith(SCORE_PREFIX)]
    return Triads(rows, [name for name in names if any(row[SCORE_PREFIX + name] is not None for row in rows)])


def filter_means(name: str, runs: Sequence[Triads]) -> FilterMeans:
    """The filter `name` over its runs (at least one)."""
    audits = [audit for each in runs if (audit := each.audit) is not None]
    return FilterMeans(
        name=name,
        count=sum(len(each.kept) for each in runs) / len(runs),
        kept=_mean([audit.kept.value for audit in audits]),
        dropped=_mean([audit.dropped.value for audit in audits]),
        auroc={score: _mean([audit.auroc.get(score) for audit in audits]) for score in runs[0].scores},
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """None where nothing is known for one of the runs: a mean over the others would be of something else."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _share(rows: Sequence[Row]) -> Share:
    return Share(sum(bool(row["truth"]) for row in rows), len(rows))


def _auroc(rows: Sequence[Row], score: str) -> float | None:
    scored = [row for row in rows if row[SCORE_PREFIX + score] is not None]
    return auroc([row[SCORE_PREFIX + score] for row in scored], [row["truth"] for row in scored])
