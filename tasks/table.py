"""Problems from a table: a dataset on the hub, a saved dataset, or a local JSONL, JSON, CSV or Parquet file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.columns import FORMATS, ON_THE_HUB, is_local, local_columns
from tasks.kept import kept
from tasks.problem import CALL_NAMES, Picture, Problem, Rows, TaskError

FIELDS = ("question", "answer", "image", "id", "kind", "conversations")


def load(
    split: str,
    source: str,
    columns: Mapping[str, str] | None = None,
    images: str | None = None,
    subset: str | None = None,
    file: str | None = None,
) -> Rows:
    """The rows of `source` as problems, and their images.

    `columns` maps our fields (`question`, `answer`, `image`, `id`, `kind`, or `conversations` for LLaVA-style turns,
    of which the first exchange is taken) to the table's; a field keeps its own name unless mapped. `images` is the
    folder that image paths are relative to. `subset` and `file` choose a configuration or one file of a hub dataset.
    All other columns but images are the problems' `columns`, for their reward.
    Rows without question and answer, or without any text and image, are counted by reason; images are not decoded here.
    Raises `TaskError`.
    """
    import datasets

    names = _names(source, columns)
    table = _open(split, source, subset, file)
    # Images stay bytes: one that cannot be decoded is a row to count, not an end to reading.
    for column, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(column, datasets.Image(decode=False))
    _check_columns(source, columns, names, set(table.column_names))
    dropped: Counter[str] = Counter()
    # Images would fill the memory, also inside of lists.
    pictured = {column for column, feature in table.features.items() if "Image(" in repr(feature)}
    further = _further(set(table.column_names) - pictured, names)
    folder = Path(images).expanduser() if images else None
    problems = list(_problems(table, names, further, folder, source, dropped))
    pictures = {p.cluster: Picture(p.cluster, p.image) for p in problems if p.image}
    if not problems:
        raise TaskError(
            f"{source}: no usable row ({', '.join(f'{n} {r}' for r, n in sorted(dropped.items())) or 'empty'})"
        )
    asked = [p for p in problems if p.question and p.answer]
    return Rows(asked, tuple(pictures.values()), tuple(sorted(dropped.items())))


def check(
    split: str,
    source: str,
    columns: Mapping[str, str] | None = None,
    images: str | None = None,
    subset: str | None = None,
    file: str | None = None,
) -> str | None:
    """Raises `TaskError` where a local table or its columns are missing; for a hub dataset, a line that says so."""
    names = _names(source, columns)
    path = Path(source).expanduser()
    if not path.exists() and not is_local(source):
        return ON_THE_HUB.format(source)
    if images is not None and not Path(images).expanduser().is_dir():
        raise TaskError(f"images: {images}: no such folder")
    _check_columns(source, columns, names, local_columns(path, split, source))
    return None


def columns(split: str, source: str, columns: Mapping[str, str] | None = None, **others: Any) -> frozenset[str] | None:
    """The names of its problems' `columns`, images among them; None for a dataset on the hub."""
    path = Path(source).expanduser()
    return _further(local_columns(path, split, source), _names(source, columns)) if path.exists() else None


def _further(present: Collection[str], names: Mapping[str, str]) -> frozenset[str]:
    return frozenset(present) - {*names, *names.values(), *CALL_NAMES}


def _names(source: str, columns: Mapping[str, str] | None) -> dict[str, str]:
    names = {field: field for field in FIELDS} | dict(columns or {})
    if unknown := set(names) - set(FIELDS):
        raise TaskError(f"{source}: columns maps {sorted(unknown)}, which are none of {', '.join(FIELDS)}")
    return names


def _check_columns(
    source: str, columns: Mapping[str, str] | None, names: Mapping[str, str], present: Collection[str]
) -> None:
    for field, column in (columns or {}).items():
        if column not in present:
            raise TaskError(f"{source}: no column {column!r} for {field}; it has {', '.join(sorted(present))}")
    if names["image"] not in present and not {names["question"], names["conversations"]} & set(present):
        raise TaskError(f"{source}: neither a question nor an image column; it has {', '.join(sorted(present))}")


def _open(split: str, source: str, subset: str | None, file: str | None) -> Any:
    import datasets

    path = Path(source).expanduser()
    try:
        if path.is_file():
            if path.suffix not in FORMATS:
                raise TaskError(f"{source}: not one of {', '.join(sorted(FORMATS))}")
            return datasets.load_dataset(FORMATS[path.suffix], data_files=str(path), split="train")
        if path.is_dir() and ((path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists()):
            loaded = datasets.load_from_disk(str(path))
            return loaded[split] if isinstance(loaded, datasets.DatasetDict) else loaded
        if is_local(source):
            raise TaskError(f"{source}: no such file or saved dataset")
        return datasets.load_dataset(source, subset, split=split, data_files=file)
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetGenerationError) as error:
        if isinstance(error, TaskError):
            raise
        raise TaskError(
            f"{source}, split {split}: cannot be read ({str(error).strip().splitlines()[0][:200]})"
        ) from error


def _problems(
    table: Any,
    names: Mapping[str, str],
    further: Collection[str],
    images: Path | None,
    source: str,
    dropped: Counter[str],
) -> Iterator[Problem]:
    known: Counter[str] = Counter()
    for number, row in enumerate(table):
        question, answer = _texts(row, names)
        image, image_id = _image(row.get(names["image"]), images)
        if not image and not (question and answer):
            dropped["empty"] += 1
            continue
        identity = str(row.get(names["id"]) if row.get(names["id"]) is not None else number)
        # An id is one problem's: of rows that share one, the second is called `id#2`, in the order of the table.
        known[identity] += 1
        if known[identity] > 1:
            identity = f"{identity}#{known[identity]}"
        kind = str(row.get(names["kind"]) or "")
        own = {name: row[name] for name in sorted(further)}
        yield Problem(identity, question, answer, image, image_id or identity, kind, own)


def _texts(row: Mapping[str, Any], names: Mapping[str, str]) -> tuple[str, str]:
    turns = row.get(names["conversations"])
    if turns:
        said = [str(turn.get("value", turn.get("content", ""))).replace("<image>", "").strip() for turn in turns]
        return (said[0], said[1]) if len(said) > 1 else (said[0], "")
    return str(row.get(names["question"]) or "").strip(), str(row.get(names["answer"]) or "").strip()


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
