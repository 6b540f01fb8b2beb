"""Tries a reward the way training would, and in ways that training hopes not to: before a GPU is rented for it."""

from __future__ import annotations

import json
import pickle
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewards.contract import Reward, RewardError, columns_of, score
from rewards.pool import Pool, close_shared
from rewards.registry import load
from rewards.samples import RIGHT, Row

SECONDS = 60.0
"""For all checks together; a reward that takes longer is stopped."""
_LONG = 100_000


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    ok: bool
    detail: str = ""


def check(
    reference: str, rows: Sequence[Row], options: Mapping[str, Any] | None = None, seconds: float = SECONDS
) -> list[Finding]:
    """Runs all checks in a process of its own, which is stopped after `seconds`.

    `rows` hold the data's columns, and under `completion` one that is right.

    Raises:
        RewardError: the reward cannot be found or loaded, or there are no rows.
    """
    if not rows:
        raise RewardError("there are no rows to check the reward on")
    load(reference, options)
    pool = Pool(workers=1, memory=16 << 30)
    try:
        verdict = pool.map(_all, [(reference, list(rows), dict(options or {}))], seconds)[0]
    finally:
        pool.close()
    if verdict.reason is not None:
        why = {"timeout": f"did not return within {seconds:g} s", "died": "ended its process or took too much memory"}
        return [Finding("returns in time", False, why.get(verdict.reason, "raised what is no exception of a reward"))]
    found: list[Finding] = verdict.value
    return found


def rows_of(path: Path) -> list[Row]:
    """The rows of a JSONL file; the right completion is `completion` where a row has one, else its `answer`.

    Raises:
        RewardError: it cannot be read, or a line is no object or has neither.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RewardError(f"{path}: cannot be read ({error})") from None
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not {RIGHT, "answer"} & row.keys():
            raise RewardError(f"{path}, line {number}: not a JSON object with `{RIGHT}` or `answer`")
        rows.append({RIGHT: str(row.get("answer")), **row})
    return rows


def _all(reference: str, rows: Sequence[Row], options: Mapping[str, Any]) -> list[Finding]:
    reward = load(reference, options)
    missing = [name for name in columns_of(reward) if any(name not in row for row in rows)]
    if missing:
        there = ", ".join(sorted(set(rows[0]) - {RIGHT})) or "none"
        return [Finding("columns", False, f"it wants {missing[0]!r}, which the rows lack; they have: {there}")]
    try:
        return list(_findings(reward, rows))
    except RewardError as error:
        return [Finding("keeps its contract", False, str(error))]
    finally:
        close_shared()


def _findings(reward: Reward, rows: Sequence[Row]) -> Iterator[Finding]:
    right = [str(row[RIGHT]) for row in rows]
    gold = _scores(reward, rows, right)
    yield Finding("columns", True, ", ".join(columns_of(reward)) or "none needed")
    yield Finding("one score for each completion", True, f"{len(gold)}")
    unscored = sum(value is None for value in gold)
    yield Finding("right answers are scored", not unscored, f"{unscored} of {len(gold)} are None" if unscored else "")
    yield from _ranking(reward, rows, right, gold)
    order = list(range(len(rows)))
    random.Random(0).shuffle(order)
    shuffled = _scores(reward, [rows[i] for i in order], [right[i] for i in order])
    yield Finding("order in the batch does not matter", shuffled == [gold[i] for i in order])
    alone = [_scores(reward, [row], [text])[0] for row, text in zip(rows, right, strict=True)]
    yield Finding("neighbours in the batch do not matter", alone == gold)
    yield Finding("same input, same score", _scores(reward, rows, right) == gold)
    turns = [[{"role": "assistant", "content": text}] for text in right]
    yield Finding("conversations score as strings do", _scores(reward, rows, turns) == gold)
    try:
        kept = pickle.loads(pickle.dumps(reward))
        yield Finding("pickles", _scores(kept, rows, right) == gold)
    except Exception as error:
        yield Finding("pickles", False, f"{type(error).__name__}: {error}")
    yield from _payloads(reward, rows)


def _ranking(
    reward: Reward, rows: Sequence[Row], right: Sequence[str], gold: Sequence[float | None]
) -> Iterator[Finding]:
    """Right answers score the most there is, and every corrupted one less than its own right one."""
    best = max((value for value in gold if value is not None), default=None)
    level = {value for value in gold if value is not None} == {best}
    yield Finding("right answers score the maximum", best is not None and level, "" if level else f"scores: {gold}")
    wrong: list[tuple[int, str]] = []
    for number, text in enumerate(right):
        others = [other for other in right if other != text][:1]
        wrong += [(number, each) for each in ("", "no such answer", text * 2, f"{text} " * 2000, *others)]
    low = _scores(reward, [rows[number] for number, _ in wrong], [text for _, text in wrong])
    scored = [
        (text, value, own)
        for (number, text), value in zip(wrong, low, strict=True)
        if value is not None and (own := gold[number]) is not None
    ]
    above = [f"{text[:40]!r} scores {value:g}" for text, value, own in scored if value > own]
    yield Finding("no corrupted answer scores more", not above, above[0] if above else "")
    less = sum(value < own for _, value, own in scored)
    yield Finding("corrupted answers score less", bool(less), f"{less} of {len(low)} do")


def _payloads(reward: Reward, rows: Sequence[Row]) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory() as directory:
        flag = Path(directory) / "ran"
        code = f"__import__('pathlib').Path({str(flag)!r}).touch()"
        texts = [code, rf"\boxed{{{code}}}", f"<answer>{code}</answer>", "1" * _LONG, "(" * _LONG, "<answer>" * 5000]
        row = [rows[0]] * len(texts)
        _scores(reward, row, texts)
        yield Finding("runs no code of a completion", not flag.exists())
        yield Finding("returns on very long completions", True, f"{_LONG:,} characters")


def _scores(reward: Reward, rows: Sequence[Row], completions: Sequence[Any]) -> list[float | None]:
    names = dict.fromkeys(name for row in rows for name in row if name != RIGHT)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return score(reward, [""] * len(rows), completions, **columns).values
