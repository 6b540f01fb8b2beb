"""Problems from a table: a dataset on the hub, a saved dataset, or a local JSONL, JSON, CSV or Parquet file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.base import first_line
from tasks import choices as multiple
from tasks import written
from tasks.columns import FORMATS, ON_THE_HUB, is_local, local_columns
from tasks.faults import Fault, Faults
from tasks.kept import kept
from tasks.problem import CALL_NAMES, Picture, Problem, Rows, TaskError

FIELDS = ("question", "answer", "image", "id", "kind", "conversations")
"""What a table may have under these names."""
MAPPED = ("choices", "cluster", "context")
"""What it has where `columns` says so."""


def load(
    split: str,
    source: str,
    columns: Mapping[str, str] | None = None,
    images: str | None = None,
    subset: str | None = None,
    file: str | None = None,
    gold: str | None = None,
    marker: str | None = None,
    image_subset: str | None = None,
) -> Rows:
    """The rows of `source` as problems, and their images.

    `columns` maps our fields to the table's columns. `question`, `answer`, `image`, `id`, `kind` and `conversations`
    (LLaVA-style turns, of which the first exchange is taken) keep their own names unless mapped. Only where mapped:
    `choices` are a multiple-choice question's options (a list, a mapping with lists `text` and `label`, or text with
    `Options: A: …, B: …` in it), which are shown as lettered lines behind the question; the answer becomes the letter
    of the one that the table says is right by `gold`: its `label` (unless given), its `index` from 0, or its `text`.
    `cluster` are the problems that go together in an interval, those of an image unless mapped. `context` is put before
    the question.
    `marker` is text behind whose last occurrence the answer stands (`####`). `images` is the folder that image paths
    are relative to; with `image_subset`, a configuration of the source that has columns `id` and `image`, our `image`
    is such an id. `subset` and `file` choose a configuration or one file of a hub dataset.
    All other columns but images are the problems' `columns`, for their reward, and `choices` as a list of texts. A
    local CSV or JSON file is read as it is written (`tasks.written`); a CSV's other columns are numbers where every
    cell is one or empty.
    Rows without question and answer, without any text and image, or with options that cannot be read are counted and
    named, from 0; images are not decoded here. Raises `TaskError`.
    """
    names = _names(source, columns, gold, marker)
    table = _open(split, source, subset, file)
    _check_columns(source, columns, names, table.column_names)
    table, pictured = _undecoded(table)
    further = sorted(_further(set(table.column_names) - pictured, names))
    if isinstance(table, written.Written) and Path(source).suffix == ".csv":
        table = _with_numbers(table, further)
    reader = _Reader(
        names,
        further,
        Path(images).expanduser() if images else None,
        gold or multiple.GOLD[0],
        marker,
        _joined(split, source, image_subset) if image_subset else None,
    )
    faults = Faults()
    problems, pictures = [], {}
    for problem, picture in reader.read(table, faults):
        problems.append(problem)
        if picture:
            pictures[picture.path] = picture
    if not problems:
        told = ", ".join(f"{number} {reason}" for reason, number in faults.dropped) or "empty"
        raise TaskError(f"{source}: no usable row ({told})")
    asked = [problem for problem in problems if problem.question and problem.answer]
    # A slice counts images where there are any, and so does not part the rows.
    return Rows(asked, tuple(pictures.values()), faults.dropped, faults=None if pictures else faults)


def check(
    split: str,
    source: str,
    columns: Mapping[str, str] | None = None,
    images: str | None = None,
    subset: str | None = None,
    file: str | None = None,
    gold: str | None = None,
    marker: str | None = None,
    image_subset: str | None = None,
) -> str | None:
    """Raises `TaskError` where a local table or its columns are missing; for a hub dataset, a line that says so."""
    names = _names(source, columns, gold, marker)
    path = Path(source).expanduser()
    if _in_parts(path):
        return f"{source} is a copy of a dataset of the hub: its columns are looked at when it is loaded"
    if not path.exists() and not is_local(source):
        return ON_THE_HUB.format(source)
    if images is not None and not Path(images).expanduser().is_dir():
        raise TaskError(f"images: {images}: no such folder")
    _check_columns(source, columns, names, local_columns(path, split, source))
    return None


def columns(split: str, source: str, columns: Mapping[str, str] | None = None, **others: Any) -> frozenset[str] | None:
    """The names of its problems' `columns`, images among them; None for a dataset on the hub."""
    path = Path(source).expanduser()
    if _in_parts(path) or not path.exists():
        return None
    names = _names(source, columns, None, None)
    return _further(local_columns(path, split, source), names) | ({"choices"} & names.keys())


def _further(present: Collection[str], names: Mapping[str, str]) -> frozenset[str]:
    return frozenset(present) - {*names, *names.values(), *CALL_NAMES}


def _names(source: str, columns: Mapping[str, str] | None, gold: str | None, marker: str | None) -> dict[str, str]:
    names = {field: field for field in FIELDS} | dict(columns or {})
    if unknown := set(names) - {*FIELDS, *MAPPED}:
        raise TaskError(f"{source}: columns maps {sorted(unknown)}, which are none of {', '.join((*FIELDS, *MAPPED))}")
    if gold is not None and gold not in multiple.GOLD:
        raise TaskError(f"{source}: gold is one of {', '.join(multiple.GOLD)}, not {gold!r}")
    if gold is not None and "choices" not in names:
        raise TaskError(f"{source}: gold says which of the options is right: name their column, columns.choices")
    if marker is not None and not (isinstance(marker, str) and marker.strip()):
        raise TaskError(f"{source}: marker is the text that the answer stands behind, not {marker!r}")
    return names


def _check_columns(
    source: str, columns: Mapping[str, str] | None, names: Mapping[str, str], present: Collection[str]
) -> None:
    for field, column in (columns or {}).items():
        if column not in present:
            raise TaskError(f"{source}: no column {column!r} for {field}; it has {', '.join(present)}")
    if names["image"] not in present and not {names["question"], names["conversations"]} & set(present):
        one = source.endswith(".csv") and len(present) == 1
        parted = "; columns of a CSV are parted by commas" if one and set(";\t|") & set(*present) else ""
        there = ", ".join(present)
        raise TaskError(f"{source}: neither a question nor an image column; it has {there}{parted}")


def _in_parts(path: Path) -> bool:
    """Whether it is a local copy of a hub dataset: a folder that is no saved dataset, with tables somewhere in it."""
    return path.is_dir() and not _is_saved(path) and any(each.suffix in FORMATS for each in path.rglob("*.*"))


def _is_saved(path: Path) -> bool:
    return (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists()


def _open(split: str, source: str, subset: str | None, file: str | None) -> Any:
    path = Path(source).expanduser()
    if path.is_file() and path.suffix not in FORMATS:
        raise TaskError(f"{source}: not one of {', '.join(FORMATS)}")
    if path.is_file() and path.suffix != ".parquet":
        return written.read(path, source)
    import datasets

    try:
        if path.is_file():
            return datasets.load_dataset("parquet", data_files=str(path), split="train")
        if path.is_dir() and _is_saved(path):
            loaded = datasets.load_from_disk(str(path))
            return loaded[split] if isinstance(loaded, datasets.DatasetDict) else loaded
        if _in_parts(path):
            return datasets.load_dataset(str(path), subset, split=split, data_files=file)
        if is_local(source):
            raise TaskError(f"{source}: no such file or saved dataset")
        return datasets.load_dataset(source, subset, split=split, data_files=file)
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetGenerationError) as error:
        if isinstance(error, TaskError):
            raise
        # What datasets says of a row that it cannot read is in the error behind its own.
        cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else None
        raise TaskError(f"{source}, split {split}: cannot be read ({first_line(cause or error)[:200]})") from error


def _with_numbers(table: Any, names: Collection[str]) -> list[Mapping[str, Any]]:
    columns = {name: written.numbers([row[name] for row in table]) for name in names}
    return [{**row, **{name: columns[name][place] for name in names}} for place, row in enumerate(table)]


def _undecoded(table: Any) -> tuple[Any, set[str]]:
    """The table with images as bytes, and the columns that have any: one that cannot be decoded is a row to count."""
    import datasets

    for column, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(column, datasets.Image(decode=False))
    # Images would fill the memory, also inside of lists.
    return table, {column for column, feature in table.features.items() if "Image(" in repr(feature)}


def _joined(split: str, source: str, subset: str) -> Mapping[str, tuple[str | None, str]]:
    """Id → (path, id) of the images of another configuration."""
    table = _open(split, source, subset, None)
    if missing := {"id", "image"} - set(table.column_names):
        there = ", ".join(sorted(table.column_names))
        raise TaskError(f"{source}: {subset} has no column {min(missing)!r}; it has {there}")
    return {str(row["id"]): _image(row["image"], None) for row in _undecoded(table)[0]}


@dataclass(frozen=True, slots=True)
class _Reader:
    """Makes problems of rows. `joined` are the images that the column of images names, where it does."""

    names: Mapping[str, str]
    further: Collection[str]
    images: Path | None
    gold: str
    marker: str | None
    joined: Mapping[str, tuple[str | None, str]] | None

    def read(self, table: Any, faults: Faults) -> Iterator[tuple[Problem, Picture | None]]:
        """The problems that can be made, and their pictures; the other rows go to `faults`."""
        known, good = Counter[str](), 0
        for number, row in enumerate(table):
            try:
                question, answer, options = self._asked(row)
                image, image_id = self._pictured(row)
                if not image and not (question and answer):
                    raise Fault("empty")
            except Fault as fault:
                faults.add(str(fault), number, after=good)
                continue
            identity = _text(self._cell(row, "id")) or str(number)
            # An id is one problem's: of rows that share one, the second is called `id#2`, in the order of the table.
            good += 1
            known[identity] += 1
            if known[identity] > 1:
                identity = f"{identity}#{known[identity]}"
            cluster = _text(self._cell(row, "cluster")) or image_id or identity
            own = {**{name: row[name] for name in self.further}, **options}
            kind = _text(self._cell(row, "kind"))
            problem = Problem(identity, question, answer, image, cluster, kind, own)
            yield problem, Picture(image_id, image) if image else None

    def _cell(self, row: Mapping[str, Any], field: str) -> Any:
        return row.get(self.names[field]) if field in self.names else None

    def _asked(self, row: Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any]]:
        """Question, answer, and the column `choices` where there is one."""
        if turns := self._cell(row, "conversations"):
            if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
                raise Fault("its conversations are no list of turns")
            said = [str(turn.get("value", turn.get("content", ""))).replace("<image>", "").strip() for turn in turns]
            return said[0], said[1] if len(said) > 1 else "", {}
        question, answer = _text(self._cell(row, "question")), _text(self._cell(row, "answer"))
        if self.marker and answer:
            _, found, answer = answer.rpartition(self.marker)
            if not found:
                raise Fault(f"its answer has no {self.marker!r}")
            answer = answer.strip()
        if "choices" not in self.names:
            return self._in_context(row, question), answer, {}
        options = multiple.read(self._cell(row, "choices"))
        if options is None:
            return self._in_context(row, question), answer, {"choices": None}
        if question:
            question = options.behind(question)
        letter = options.letter(answer, self.gold) if answer else ""
        return self._in_context(row, question), letter, {"choices": list(options.texts)}

    def _in_context(self, row: Mapping[str, Any], question: str) -> str:
        context = _text(self._cell(row, "context"))
        return f"Context: {context}\n{question}" if context and question else question

    def _pictured(self, row: Mapping[str, Any]) -> tuple[str | None, str]:
        value = self._cell(row, "image")
        if self.joined is None:
            return _image(value, self.images)
        found = self.joined.get(_text(value))
        if found is None:
            raise Fault("its image is not among those of image_subset")
        return found


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _image(value: Any, folder: Path | None) -> tuple[str | None, str]:
    """(path, id). An image inside the table is kept as a file in the datasets cache."""
    if not value:
        return None, ""
    if isinstance(value, Mapping):
        if value.get("bytes") is None:
            return _image(value.get("path"), folder)
        path, digest = kept(value["bytes"])
        return str(path), digest[:16]
    return str(((folder / str(value)) if folder else Path(str(value))).resolve()), str(value)
