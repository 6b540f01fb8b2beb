"""The browser of samples in a real browser: its filters let through what the files say, by mouse, keys and address."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from eval.trial import OUTCOMES, Trial, read
from pipelines.report import write_report
from tests.report.chromium import Tab, needs_chromium, open_tab
from tests.report.reading import Page
from tests.report.suites import CHECKPOINTS, HOSTILE, HOSTILE_ID, make_suites

pytestmark = needs_chromium

STATUS = "document.querySelector('#samples [role=status]').textContent"
TOP = "document.querySelector('#samples').getBoundingClientRect().top"
ITEM = "document.querySelector('#samples ol details')"


@pytest.fixture(scope="module")
def shared() -> Iterator[Tab]:
    with open_tab() as tab:
        yield tab


@pytest.fixture
def tab(shared: Tab, suites_report: Path) -> Iterator[Tab]:
    """The page, fresh; it must not have complained at the end."""
    shared.complaints.clear()
    shared.shape(1100, 1000)
    shared.open(suites_report)
    yield shared
    assert not shared.complaints


@pytest.fixture(scope="module")
def trials(suites_run: Path) -> list[tuple[str, Trial]]:
    """(suite, trial) of every answer."""
    files = sorted(suites_run.glob("*/*/trials.jsonl"))
    return [(file.parent.parent.name, trial) for file in files for trial in read(file)]


@pytest.fixture(scope="module")
def results(suites_run: Path) -> dict[str, Any]:
    return {path.parent.name: json.loads(path.read_text()) for path in suites_run.glob("*/eval.json")}


def counted(tab: Tab) -> tuple[int, int]:
    """(answers that are shown, problems that they are to)."""
    words = tab.value(STATUS).replace(",", "").split()
    assert words[1:4] == ["of", "1760", "answers"]
    return int(words[0]), int(words[5])


def ask(tab: Tab, **filters: str) -> tuple[int, int]:
    tab.value(f"location.hash = {json.dumps('#samples&' + urlencode(filters))}")
    tab.value("new Promise(done => setTimeout(done))")
    return counted(tab)


def of_problems(found: list[tuple[str, Trial]]) -> tuple[int, int]:
    return len(found), len({(suite, trial.problem_id) for suite, trial in found})


def test_outcomes_suites_and_checkpoints(tab: Tab, trials: list[tuple[str, Trial]]) -> None:
    assert counted(tab) == of_problems(trials) == (1760, 220)
    for outcome in OUTCOMES:
        for suite in ("", "shapes"):
            for label in ("", *CHECKPOINTS):
                expected = [
                    (name, trial)
                    for name, trial in trials
                    if trial.outcome == outcome and name in (suite or name) and trial.label in (label or trial.label)
                ]
                assert ask(tab, outcome=outcome, suite=suite, checkpoint=label) == of_problems(expected)
    assert ask(tab, suite="shapes") == (320, 40)  # An address says all: the outcome of the one before is gone.
    # Beside each outcome stands what choosing it would show.
    ask(tab, suite="words", checkpoint="base", outcome="wrong")
    shown = tab.value("[...document.querySelectorAll('#samples .chip small')].map(e => +e.textContent)")
    own = [trial.outcome for name, trial in trials if (name, trial.label) == ("words", "base")]
    assert shown == [len(own), *(own.count(outcome) for outcome in OUTCOMES)]


def test_flips_are_those_of_the_json(tab: Tab, results: Mapping[str, Any]) -> None:
    for suite, result in results.items():
        (comparison,) = result["comparisons"]
        for change, name in (("better", "gained"), ("worse", "lost")):
            problems = len(comparison[name])
            asked = {"suite": suite, "checkpoint": comparison["a"], "against": comparison["b"]}
            assert ask(tab, **asked, change=change) == (4 * problems, problems)
        both = len(comparison["gained"]) + len(comparison["lost"])
        assert ask(tab, **asked, change="any") == (4 * both, both)


def test_flips_against_a_run_whose_answers_are_elsewhere(
    shared: Tab, suites_run: Path, results: Mapping[str, Any], tmp_path: Path
) -> None:
    run = Path(shutil.copytree(suites_run, tmp_path / "alone"))
    for path in run.glob("*/eval.json"):
        result = json.loads(path.read_text())
        result["checkpoints"] = [each for each in result["checkpoints"] if each["label"] == "tuned"]
        path.write_text(json.dumps(result))
    shared.complaints.clear()
    shared.open(write_report(run))
    for suite, result in results.items():
        (comparison,) = result["comparisons"]
        for change, name in (("better", "gained"), ("worse", "lost")):
            if not comparison[name]:
                continue  # no link: it would show nothing
            links = f"[data-samples*='suite={suite}&'][data-samples*='change={change}'] a"
            shared.value(f'[...document.querySelectorAll("{links}")].at(-1).click()')
            shared.value("new Promise(done => setTimeout(done))")
            words = shared.value(STATUS).replace(",", "").split()
            assert (words[2], int(words[0]), int(words[5])) == ("880", 4 * len(comparison[name]), len(comparison[name]))
    assert not shared.complaints


def test_search_and_factors(tab: Tab, trials: list[tuple[str, Trial]]) -> None:
    for text in ("therefore", "What is 12 +", "sums-11", "SYSTEM", "<brief>", "(3)", "####", "a.b"):
        expected = [
            (name, trial)
            for name, trial in trials
            if any(
                text.lower() in each.lower()
                for each in (
                    trial.problem_id,
                    trial.gold or "",
                    trial.completion,
                    *(t["content"] for t in trial.prompt),
                )
            )
        ]
        assert ask(tab, text=text) == of_problems(expected), text
    expected = [(name, trial) for name, trial in trials if trial.factors["kind"] == "level 10" and name == "sums"]
    assert ask(tab, factor="kind=level 10", suite="sums") == of_problems(expected)
    options = tab.value("[...document.querySelectorAll('#samples [name=factor] option')].map(e => e.text)")
    assert options == ["any", *(f"level {number}" for number in range(1, 12))]


def test_what_an_address_names_and_is_not_there_filters_nothing(tab: Tab) -> None:
    assert ask(tab, suite="gone", checkpoint="nobody", outcome="fine", factor="x=y", change="up") == (1760, 220)


def test_keys_alone_will_do(tab: Tab, trials: list[tuple[str, Trial]]) -> None:
    tab.value("document.querySelector('#samples [name=outcome]:checked').focus()")
    tab.press("ArrowRight")
    tab.press("ArrowRight")
    wrong = [(name, trial) for name, trial in trials if trial.outcome == "wrong"]
    assert counted(tab) == of_problems(wrong)
    assert tab.value("location.hash") == "#samples&outcome=wrong"
    tab.press("Tab")
    tab.call("Input.insertText", text="shapes-1")
    tab.until(f"!{STATUS}.startsWith('{len(wrong)} ')")
    found = [(name, trial) for name, trial in wrong if "shapes-1" in trial.problem_id]
    assert counted(tab) == of_problems(found)
    tab.value(f"{ITEM}.querySelector('summary').focus()")
    tab.press("Enter", "\r")
    tab.until(f"{ITEM}.querySelector('.sample')")
    tab.press("Tab")
    assert tab.value("document.activeElement.tagName") == "PRE"  # Long texts are scrolled by keys.
    assert tab.value(f"{ITEM}.querySelector('.sample mark') === null")  # Only the id has it.


def test_pages(tab: Tab) -> None:
    nav = "document.querySelector('#samples nav')"
    assert tab.value(f"{nav}.textContent").split() == ["Previous", "1–25", "of", "1,760", "Next"]
    assert tab.value("document.querySelectorAll('#samples ol > li').length") == 25
    assert tab.value(f"[...{nav}.querySelectorAll('button')].map(e => e.disabled)") == [True, False]
    tab.value(f"for (let i = 0; i < 70; i++) {nav}.lastElementChild.click()")
    assert tab.value(f"{nav}.querySelector('span').textContent") == "1,751–1,760 of 1,760"
    assert tab.value(f"[...{nav}.querySelectorAll('button')].map(e => e.disabled)") == [False, True]
    assert ask(tab, text="no such text")[0] == 0
    assert tab.value(f"{nav}.hidden && !document.querySelector('#samples ol > li')")


def test_counts_in_tables_lead_to_their_answers(tab: Tab, results: Mapping[str, Any]) -> None:
    link = "document.querySelector('#differences tr[data-suite=words] [data-samples$=better] a')"
    assert tab.value(f"{TOP} > 500")
    for _ in range(2):  # The same again, after the filters were cleared and the page was scrolled.
        tab.value(f"{link}.click()")
        tab.until(f"{TOP} < 100")
        gained = len(results["words"]["comparisons"][0]["gained"])
        assert counted(tab) == (4 * gained, gained)
        tab.value("document.querySelector('#samples [type=reset]').click()")
        tab.until(f"{STATUS}.startsWith('1,760 of')")
        tab.value("scrollTo(0, 0)")
    nothing = "[...document.querySelectorAll('[data-samples] a')].some(e => !/[1-9]/.test(e.textContent))"
    assert not tab.value(nothing)


def test_a_sample_shows_all_that_is_known(tab: Tab, trials: list[tuple[str, Trial]]) -> None:
    ask(tab, suite="shapes", checkpoint="tuned", against="base", outcome="wrong", text="shapes")
    tab.value(f"{ITEM}.querySelector('summary').click()")
    tab.until(f"{ITEM}.querySelector('img')?.complete")
    wrong = (trial for name, trial in trials if (name, trial.label, trial.outcome) == ("shapes", "tuned", "wrong"))
    trial = min(wrong, key=lambda each: (int(each.problem_id.partition("-")[2]), each.sample))
    assert tab.value(f"{ITEM}.querySelector('img').naturalWidth") == 256
    assert tab.value(f"{ITEM}.querySelector('mark').textContent") == "shapes"
    shown = tab.value(f"[...{ITEM}.querySelectorAll('.sample > pre')].map(e => e.textContent)")
    assert shown == [*(turn["content"] for turn in trial.prompt), trial.completion]
    names = tab.value(f"[...{ITEM}.querySelectorAll('dt')].map(e => e.textContent)")
    values = tab.value(f"[...{ITEM}.querySelectorAll('dd')].map(e => e.textContent)")
    assert dict(zip(names, values, strict=True)) == {
        "outcome": "✗ wrong",
        "gold answer": "1",
        "extracted, strict": "7 reward 0",
        "extracted, any form": "7 reward 0",
        "checks": "finished ✓ · parsed ✓ · valid – · correct ✗",
        "kind": trial.factors["kind"],
        "problem": f"{trial.problem_id} in {trial.cluster}",
    }
    # All others to the same problem; those of the checkpoint that it is compared with are open.
    others = tab.value(f"[...{ITEM}.querySelectorAll('.sample details')].map(e => [e.open, e.textContent])")
    own = [each for _, each in trials if each.problem_id == trial.problem_id and each != trial]
    assert sorted(text.endswith(each.completion) for _, text in others for each in own).count(True) == 7
    assert [opened for opened, _ in others] == [True] * 4 + [False] * 3


def test_hostile_text_stays_text(tab: Tab) -> None:
    title = tab.value("document.title")
    elements = "document.querySelectorAll('script, img, iframe').length"
    before = tab.value(elements)
    assert ask(tab, text="</SCRIPT>") == (8, 1)
    tab.value("for (const each of document.querySelectorAll('#samples ol summary')) each.click()")
    tab.until("document.querySelectorAll('#samples .sample').length === 8")
    assert tab.value(f"{ITEM}.querySelector('.sample > pre:nth-of-type(3)').textContent").startswith(HOSTILE)
    assert tab.value(f"{ITEM}.querySelector('dl').textContent.includes('{HOSTILE_ID}')")
    assert (tab.value(elements), tab.value("document.title")) == (before, title)


def test_the_policy_lets_no_other_script_run(tab: Tab) -> None:
    tab.value(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.owned = 1'}))"
    )
    assert tab.value("window.owned === undefined")
    assert "Content Security Policy" in tab.complaints.pop()


def test_without_scripts_the_tables_are_there(shared: Tab, suites_report: Path) -> None:
    shared.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        shared.call("Page.navigate", url=f"file://{suites_report}")
        shared.until("document.readyState === 'complete'")
        shown = Page(shared.value("document.documentElement.outerHTML"))
        assert shown.tables["suites"] == Page(suites_report.read_text()).tables["suites"]
        assert "takes JavaScript, which is off" in shared.value("document.querySelector('#samples').innerText")
        assert shared.value("document.querySelector('#samples form').checkVisibility()") is False
    finally:
        shared.call("Emulation.setScriptExecutionDisabled", value=False)


def test_ten_thousand_answers(shared: Tab, tmp_path: Path) -> None:
    run = make_suites(tmp_path / "runs" / "many", {"sums": 5000}, words=30)
    report = write_report(run)
    assert report.stat().st_size < 15_000_000
    result = json.loads((run / "sums" / "eval.json").read_text())
    shared.open(report)
    assert shared.value(STATUS) == "10,000 of 10,000 answers, to 5,000 problems"
    for each in result["checkpoints"]:
        for outcome in OUTCOMES:
            shared.value(f"location.hash = '#samples&checkpoint={each['label']}&outcome={outcome}'")
            shared.until(f"{STATUS}.startsWith('{each['outcomes'][outcome]:,} of 10,000')")
    (comparison,) = result["comparisons"]
    shared.value("location.hash = '#samples&checkpoint=tuned&against=base&change=worse'")
    shared.until(f"{STATUS}.startsWith('{len(comparison['lost']):,} of 10,000')")
    shared.value("location.hash = '#samples&text=sums-4999'")
    shared.until(f"{STATUS} === '2 of 10,000 answers, to 1 problem'")
