"""Tries a reward the way training would, and in ways that training hopes not to: before a GPU is rented for it."""

from __future__ import annotations

import json
import pickle
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewards.contract import STEPS, RewardError, columns_of, score
from rewards.pool import Pool, close_shared
from rewards.registry import load
from rewards.samples import RIGHT, Row, steps_of
from rewards.steps import columns_beside_steps, score_steps, takes_steps

SECONDS = 60.0
"""For all checks together; a reward that takes longer is stopped."""
_LONG = 100_000

Ask = Callable[[Any, Sequence[Row], Sequence[Any], bool], list[Any]]
"""What a reward says of a trace for each row, a text or a list of its parts; the last: in the form of conversations."""


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

    `rows` hold the data's columns, and under `completion` one that is right. What takes `steps`, where the rows have no
    such column, is checked as a step reward; `completion` is then parted behind its sentences and lines.

    Raises:
        RewardError: the reward cannot be found or loaded, or there are no rows.
    """
    if not rows:
        raise RewardError("there are no rows to check the reward on")
    pool = Pool(workers=1, memory=16 << 30)
    try:
        verdict = pool.map(_all, [(reference, list(rows), dict(options or {}))], seconds)[0]
    finally:
        pool.close()
    if verdict.reason is not None:
        why = {"timeout": f"did not return within {seconds:g} s", "died": "ended its process or took too much memory"}
        return [Finding("returns in time", False, why.get(verdict.reason, "raised what is no exception of a reward"))]
    found: list[Finding] | RewardError = verdict.value
    if isinstance(found, RewardError):
        raise found
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


def _all(reference: str, rows: Sequence[Row], options: Mapping[str, Any]) -> list[Finding] | RewardError:
    """What was found; the error of a reward that cannot be loaded, since a worker keeps what is raised to itself."""
    try:
        reward = load(reference, options)  # which runs a user's file: here alone, where it can be stopped
    except RewardError as error:
        return error
    grades_steps = takes_steps(reward) and not any(STEPS in row for row in rows)
    wanted = columns_beside_steps(columns_of(reward)) if grades_steps else columns_of(reward)
    missing = [name for name in wanted if any(name not in row for row in rows)]
    if missing:
        there = ", ".join(sorted(set(rows[0]) - {RIGHT})) or "none"
        return [Finding("columns", False, f"it wants {missing[0]!r}, which the rows lack; they have: {there}")]
    try:
        return [
            Finding("columns", True, ", ".join(wanted) or "none needed"),
            *(_step_findings if grades_steps else _findings)(reward, rows),
        ]
    except RewardError as error:
        return [Finding("keeps its contract", False, str(error))]
    finally:
        close_shared()


def _findings(reward: Any, rows: Sequence[Row]) -> Iterator[Finding]:
    right = [str(row[RIGHT]) for row in rows]
    gold = _scores(reward, rows, right)
    yield Finding("one score for each completion", True, f"{len(gold)}")
    unscored = sum(value is None for value in gold)
    yield Finding("right answers are scored", not unscored, f"{unscored} of {len(gold)} are None" if unscored else "")
    yield from _ranking(reward, rows, right, gold)
    yield from _steadiness(_scores, reward, rows, right, gold)
    yield from _payloads(_scores, reward, rows, lambda text: text)


def _step_findings(reward: Any, rows: Sequence[Row]) -> Iterator[Finding]:
    traces = [steps_of(str(row[RIGHT])) for row in rows]
    found = _step_scores(reward, rows, traces)
    values = [value for each in found for value in each]
    unscored = sum(value is None for value in values)
    yield Finding("one value for each step", True, f"{len(values)} of {len(found)} completions")
    yield Finding("some steps have a value", unscored < len(values), f"{unscored} of {len(values)} are None")
    # What the last part gets may depend on how it ends: the outcome stands in its place.
    otherwise = [[*parts[:-1], "no such answer"] for parts in traces]
    longer = [[*parts, "\n", "Wait."] for parts in traces]
    before = [each[:-1] for each in found]
    same = all(
        [each[: len(known)] for each, known in zip(_step_scores(reward, rows, other), before, strict=True)] == before
        for other in (otherwise, longer)
    )
    yield Finding("what follows a step does not matter", same)
    yield from _steadiness(_step_scores, reward, rows, traces, found)
    yield from _payloads(_step_scores, reward, rows, lambda text: ["So:\n", text])
    _step_scores(reward, [rows[0]] * 3, [["a\n"] * 5000, [""], ["", "a", ""]])
    yield Finding("returns on many steps, and on empty ones", True, "5,000 steps")


def _steadiness(
    ask: Ask, reward: Any, rows: Sequence[Row], traces: Sequence[Any], gold: Sequence[Any]
) -> Iterator[Finding]:
    """The same trace gets the same, wherever it stands, in whatever form, and from a copy of the reward."""
    order = list(range(len(rows)))
    random.Random(0).shuffle(order)
    shuffled = ask(reward, [rows[i] for i in order], [traces[i] for i in order], False)
    yield Finding("order in the batch does not matter", shuffled == [gold[i] for i in order])
    alone = [ask(reward, [row], [trace], False)[0] for row, trace in zip(rows, traces, strict=True)]
    yield Finding("neighbours in the batch do not matter", alone == gold)
    yield Finding("same input, same score", ask(reward, rows, traces, False) == gold)
    yield Finding("conversations score as strings do", ask(reward, rows, traces, True) == gold)
    try:
        kept = pickle.loads(pickle.dumps(reward))
        yield Finding("pickles", ask(kept, rows, traces, False) == gold)
    except Exception as error:
        yield Finding("pickles", False, f"{type(error).__name__}: {error}")


def _ranking(reward: Any, rows: Sequence[Row], right: Sequence[str], gold: Sequence[float | None]) -> Iterator[Finding]:
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


def _payloads(ask: Ask, reward: Any, rows: Sequence[Row], trace: Callable[[str], Any]) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory() as directory:
        flag = Path(directory) / "ran"
        code = f"__import__('pathlib').Path({str(flag)!r}).touch()"
        texts = [code, rf"\boxed{{{code}}}", f"<answer>{code}</answer>", "1" * _LONG, "(" * _LONG, "<answer>" * 5000]
        ask(reward, [rows[0]] * len(texts), [trace(text) for text in texts], False)
        yield Finding("runs no code of a completion", not flag.exists())
        yield Finding("returns on very long completions", True, f"{_LONG:,} characters")


def _scores(reward: Any, rows: Sequence[Row], texts: Sequence[str], turns: bool = False) -> list[float | None]:
    return score(reward, [""] * len(rows), _completions(texts, turns), **_columns(rows)).values


def _step_scores(
    reward: Any, rows: Sequence[Row], traces: Sequence[Sequence[str]], turns: bool = False
) -> list[list[float | None]]:
    completions = _completions(["".join(parts) for parts in traces], turns)
    return score_steps(reward, [""] * len(rows), completions, traces, **_columns(rows))


def _completions(texts: Sequence[str], turns: bool) -> list[Any]:
    return [[{"role": "assistant", "content": text}] for text in texts] if turns else list(texts)


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for row in rows for name in row if name != RIGHT)
    return {name: [row.get(name) for row in rows] for name in names}
