"""The samples that a page carries: nothing is lost on the way, what has no room is counted, nothing becomes HTML."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eval.trial import OUTCOMES, Trial
from pipelines.report import page, write_report
from pipelines.report.measures import Measures
from pipelines.report.pictures import LEFT_OUT, UNREADABLE, Pictures
from pipelines.report.samples import Samples, pack_samples
from tests.report.suites import HOSTILE, HOSTILE_ID


def unpack(text: str) -> dict[str, Any]:
    return json.loads(gzip.decompress(base64.b64decode(text)))  # type: ignore[no-any-return]


def answers(samples: Samples) -> Iterator[tuple[tuple[object, ...], dict[str, Any]]]:
    """(suite, problem, checkpoint, sample), and all that is known of the answer."""
    head = unpack(samples.head)
    for text, pictured in zip(samples.blocks, head["pictured"], strict=True):
        block = unpack(text)
        columns = block["answers"]
        for row, problem in enumerate(columns["problem"]):
            shared = {name: block[name][problem] for name in ("places", "ids", "clusters", "prompts", "golds")}
            own = {name: column[row] for name, column in columns.items()}
            own |= {name: block["states"][own[name]] for name in ("rewards", "end", "scores", "checks", "factors")}
            picture = pictured[problem]
            shown = {"picture": head["pictures"][picture] if isinstance(picture, int) else picture}
            key = (head["suites"][block["suite"]]["key"], shared["ids"], own["checkpoint"], own["sample"])
            yield key, {**shared, **own, **shown}


def test_every_answer_is_there_with_all_that_is_known_of_it(measured: list[Measures]) -> None:
    samples = pack_samples(measured)
    assert samples is not None
    assert (samples.shown, samples.found) == (1760, 1760)
    found = dict(answers(samples))
    assert len(found) == 1760
    for evaluation in measured:
        places = {trial.problem_id: None for trial in evaluation.results[0].trials}
        for each in evaluation.results:
            for trial in each.trials:
                answer = found[evaluation.key, trial.problem_id, each.label, trial.sample]
                _check(answer, trial)
                assert answer["places"] == list(places).index(trial.problem_id)


def _check(answer: dict[str, Any], trial: Trial) -> None:
    assert answer["prompts"] == [[turn["role"], turn["content"]] for turn in trial.prompt] and len(trial.prompt) == 2
    assert (answer["completion"], answer["golds"]) == (trial.completion, trial.gold)
    assert (answer["strict"], answer["flexible"]) == (trial.extract.strict, trial.extract.flexible)
    assert answer["rewards"] == [trial.reward.strict, trial.reward.flexible]
    assert OUTCOMES[answer["outcome"]] == trial.outcome
    assert answer["end"] == [trial.finish, trial.reason]
    assert answer["checks"] == [[each.name, each.phase, each.verdict] for each in trial.checks]
    assert (answer["tokens"], answer["factors"], answer["clusters"]) == (
        trial.completion_tokens,
        trial.factors,
        trial.cluster,
    )
    assert (answer["picture"] is None) == (trial.image is None)


def test_packing_is_the_same_each_time(measured: list[Measures]) -> None:
    assert pack_samples(measured) == pack_samples(measured)


def test_what_has_no_room_is_whole_problems_and_is_counted(
    measured: list[Measures], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.report.samples.BLOCK", 2_000)
    everything = pack_samples(measured)
    assert everything is not None
    half = sum(len(base64.b64decode(block)) for block in everything.blocks) // 2
    samples = pack_samples(measured, text_bytes=half)
    assert samples is not None
    found = dict(answers(samples))
    counts = Counter(key[0] for key in found)
    assert [(each.title, each.shown) for each in samples.suites] == [(key, counts[key]) for key in counts]
    assert [each.found for each in samples.suites] == [960, 320, 480]
    # A small suite fits in, and what it leaves is for those behind it.
    assert all(counts[name] > 0 for name in ("sums", "shapes", "words")) and 600 < samples.shown < 1100
    assert counts["sums"] < 960
    per_problem = Counter(key[:2] for key in found)
    assert set(per_problem.values()) == {8}
    assert sum(len(base64.b64decode(block)) for block in samples.blocks) <= half
    # Not the first problems: those of a suite may be the easy ones.
    numbers = [int(str(key[1]).partition("-")[2]) for key in found if key[0] == "sums"]
    assert 40 < sum(numbers) / len(numbers) < 80


def test_pictures_are_there_once_and_counted_where_they_are_not(tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (300, 200), (number * 90, 0, 0)).save(tmp_path / f"{number}.png")
    shutil.copy(tmp_path / "0.png", tmp_path / "copy.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    pictures = Pictures(10**6)
    names = ("0", "1", "copy", "0", "broken", "gone", "gone")
    found = [pictures.add(str(tmp_path / f"{name}.png")) for name in names]
    assert found == [0, 1, 0, 0, UNREADABLE, UNREADABLE, UNREADABLE]
    assert (len(pictures.uris), pictures.left_out, pictures.unreadable) == (2, 0, 2)
    pictures.limit = 100
    assert pictures.add(str(tmp_path / "2.png")) == LEFT_OUT
    assert pictures.add(str(tmp_path / "1.png")) == 1
    assert pictures.left_out == 1


def test_the_page_says_what_it_leaves_out(suites_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(shutil.copytree(suites_run, tmp_path / "run"))
    for name in ("sums", "words"):
        shutil.rmtree(root / name)
    monkeypatch.setattr("pipelines.report.samples.BLOCK", 1_000)
    monkeypatch.setattr(page, "pack_samples", partial(pack_samples, text_bytes=3_000, picture_bytes=8_000))
    text = " ".join(re.sub(r"<[^>]+>", "", write_report(root).read_text()).split())
    told = re.search(r"(\d+) of 320 answers are in this page, .*?: (\d+) of 320 of shapes\.", text)
    assert told and told[1] == told[2] and 0 < int(told[1]) < 320
    pictures = re.search(r"(\d+) of (\d+) different pictures are in this page", text)
    assert pictures and 0 < int(pictures[1]) < int(pictures[2]) <= 20


def test_a_completion_never_becomes_html(suites_report: Path, measured: list[Measures]) -> None:
    html = suites_report.read_text(encoding="utf-8")
    samples = pack_samples(measured)
    assert samples is not None
    hostile = [answer for key, answer in answers(samples) if key[1] == HOSTILE_ID]
    assert len(hostile) == 8 and all(answer["completion"].startswith(HOSTILE) for answer in hostile)
    assert "owned" not in html and html.count("</script>") == html.count("<script")
