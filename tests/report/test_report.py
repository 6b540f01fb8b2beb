"""The report renders, says what the files say, and lets nothing in that models wrote."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from eval.stats import auroc
from eval.trial import OUTCOMES
from pipelines.errors import RunError
from pipelines.report import write_report
from pipelines.report.format import duration, signed, thumbnail
from pipelines.report.page import script
from pipelines.report.run import read_run
from pipelines.report.seeds import combine, render_seeds
from pipelines.stages.report import ReportStage
from tasks.problem import Rows
from tests.report.chromium import needs_chromium, open_tab
from tests.report.reading import Page


@pytest.fixture(scope="module")
def html(run_directory: Path) -> str:
    return write_report(run_directory).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


@pytest.fixture(scope="module")
def result(run_directory: Path) -> dict:  # type: ignore[type-arg]
    return json.loads((run_directory / "evaluate" / "eval.json").read_text())  # type: ignore[no-any-return]


def test_accuracies_are_those_of_the_json(page: Page, result: dict) -> None:  # type: ignore[type-arg]
    _, *body = page.tables["accuracy"]
    assert [texts[0] for texts, _ in body] == [each["label"] for each in result["checkpoints"]]
    for (texts, numbers), each in zip(body, result["checkpoints"], strict=True):
        accuracy = each["accuracy"]
        assert numbers[:3] == [accuracy["value"], accuracy["low"], accuracy["high"]]
        assert texts[1] == f"{100 * accuracy['value']:.1f}"
        assert numbers[4:7] == [each["outcomes"][name] for name in ("unparsed", "truncated", "ungraded")]


def test_differences_are_those_of_the_json(page: Page, result: dict) -> None:  # type: ignore[type-arg]
    _, *body = page.tables["comparisons"]
    assert len(body) == len(result["comparisons"]) == 3
    for (_, numbers), each in zip(body, result["comparisons"], strict=True):
        estimate = each["difference"]["estimate"]
        assert numbers[:2] == each["shares"]
        assert numbers[2:6] == [estimate["value"], estimate["low"], estimate["high"], each["p_holm"]]
    change = next(each for each in result["comparisons"] if (each["a"], each["b"]) == ("update", "tune"))
    assert page.numbers["headline-difference"] == change["difference"]["estimate"]["value"]


def test_kinds_are_those_of_the_json(page: Page, result: dict) -> None:  # type: ignore[type-arg]
    head, *body = page.tables["by-1"]
    before, after = result["checkpoints"][0]["factors"]["kind"], result["checkpoints"][1]["factors"]["kind"]
    assert head[0][0] == "Kind of question"
    assert [texts[0] for texts, _ in body] == list(before)
    for texts, numbers in body:
        assert numbers == [each[texts[0]][key] for each in (before, after) for key in ("value", "low", "high", "n")]


def test_chain_and_reasons_add_up(page: Page, run_directory: Path) -> None:
    stages = {stage.name: stage.manifest for stage in read_run(run_directory).stages}
    _, *body = page.tables["chain"]
    assert len(body) == len(stages)
    for (_, numbers), manifest in zip(body, stages.values(), strict=True):
        assert numbers[-3:] == [manifest.rows_in, manifest.rows_out, sum(manifest.dropped.values())]
    _, *reasons = page.tables["dropped"]
    listed = [(texts[0], texts[1], numbers[0]) for texts, numbers in reasons]
    for name in ("filter", "filter@random"):
        assert {(reason, rows) for stage, reason, rows in listed if stage == name} == set(stages[name].dropped.items())
        assert sum(rows for stage, _, rows in listed if stage == name) == stages[name].rows_in - stages[name].rows_out  # type: ignore[operator]


def test_the_chain_is_in_order(run_directory: Path) -> None:
    names = [stage.name for stage in read_run(run_directory).stages]
    assert names == ["tune", "generate", "filter", "update", "filter@random", "update@random", "evaluate"]


def test_audit_is_that_of_the_triads(page: Page, run_directory: Path) -> None:
    rows = pq.read_table(run_directory / "filter" / "triads.parquet").to_pylist()
    kept = [row["truth"] for row in rows if row["kept"]]
    (_, numbers), _ = page.tables["audit"][1:]
    assert numbers[:2] == [len(kept), sum(kept) / len(kept)]
    assert page.numbers["headline-kept"] == len(kept)
    scored = [row for row in rows if row["score.gain"] is not None]
    expected = auroc([row["score.gain"] for row in scored], [row["truth"] for row in scored])
    assert {texts[0]: numbers[0] for texts, numbers in page.tables["auroc"][1:]}["gain"] == expected


def test_what_models_wrote_is_escaped(page: Page, html: str) -> None:
    assert "&lt;script&gt;" in html
    assert not [tag for tag, _ in page.elements if tag in ("iframe", "link", "object", "embed", "base", "b onclick")]
    assert not [name for _, values in page.elements for name in values if name.startswith("on")]
    assert "<b>not bold</b>" not in html


def test_one_script_runs_and_it_is_ours(page: Page, html: str) -> None:
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert scripts == [script()]
    data = re.findall(r'<script type="text/plain">(.*?)</script>', html, re.DOTALL)
    assert len(data) >= 2 and html.count("<script") == 1 + len(data)
    assert all(re.fullmatch(r"[A-Za-z0-9+/]+=*", each) for each in data)
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = next(v["content"] for _, v in page.elements if v.get("http-equiv") == "Content-Security-Policy")
    assert policy == (f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'")


def test_nothing_is_fetched(page: Page) -> None:
    for tag, values in page.elements:
        for name in ("src", "href", "xlink:href", "data", "action", "srcset"):
            value = values.get(name)
            assert value is None or value.startswith(("data:image/", "#")), (tag, name, value)
    style = next(text for text in page.text if ":root" in text)
    assert "url(" not in style and "@import" not in style


def test_the_gallery_ranks_by_the_score_that_selected(page: Page) -> None:
    assert any("by gain, taking turns over types" in text for text in page.text)


def test_pictures_and_plots_have_words(page: Page) -> None:
    images = [values for tag, values in page.elements if tag == "img"]
    drawings = [values for tag, values in page.elements if tag == "svg"]
    assert len(images) >= 9 and len(drawings) >= 5
    assert all(values["alt"] for values in images)
    assert all(values["role"] == "img" and values["aria-label"] for values in drawings)


def test_ids_are_unique_and_references_hold(page: Page, html: str) -> None:
    ids = [values["id"] for _, values in page.elements if values.get("id")]
    assert len(ids) == len(set(ids))
    referred = set(re.findall(r"url\(#([^)]+)\)", html)) | set(re.findall(r'href="#([^"]+)"', html))
    assert referred <= set(ids)


def test_a_report_is_the_same_each_time(run_directory: Path, html: str) -> None:
    assert write_report(run_directory).read_text(encoding="utf-8") == html


def test_a_run_half_done_has_a_report(tmp_path: Path, run_directory: Path) -> None:
    for name in ("tune", "generate"):
        shutil.copytree(run_directory / name, tmp_path / "half" / name)
    shutil.copy(run_directory / "recipe.yaml", tmp_path / "half")
    page = Page(write_report(tmp_path / "half").read_text())
    assert [texts[0].split("loss")[0] for texts, _ in page.tables["chain"][1:]] == ["tune", "generate"]
    assert "accuracy" not in page.tables


def test_an_image_that_is_gone_leaves_a_gap(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert thumbnail(str(tmp_path / "broken.png")) is None
    assert thumbnail(str(tmp_path / "gone.png")) is None
    assert thumbnail(None) is None


def test_no_run_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run here"):
        write_report(tmp_path)
    (tmp_path / "recipe.yaml").write_text("name: x\n")
    with pytest.raises(RunError, match="no stage of this run is finished"):
        write_report(tmp_path)


@pytest.fixture(scope="module")
def seeds_directory(tmp_path_factory: pytest.TempPathFactory, rows: Rows, make: Callable[..., Path]) -> Path:
    root = tmp_path_factory.mktemp("runs") / "ablation"
    for seed in range(3):
        make(root / f"seed-{seed}", rows, rows.problems, arms={"": 0.12, "random": 0.02}, seed=seed)
    (root / "recipe.yaml").write_text("name: ablation\nseeds: [0, 1, 2]\n")
    return root


def test_seeds_are_combined(seeds_directory: Path) -> None:
    page = Page(write_report(seeds_directory).read_text())
    runs = [read_run(path) for path in sorted(seeds_directory.glob("seed-*"))]
    arms = {arm.arm: arm for arm in combine([run.evaluations[0] for run in runs], [run.name for run in runs])}
    assert list(arms) == ["tune", "update", "update@random"]
    assert arms["update@random"].comparison is None
    texts, numbers = page.tables["arms"][2]
    update = arms["update"]
    assert texts[0] == f"update{update.verdict}"
    assert update.verdict == "improved on update@random, 3 seeds"
    assert update.comparison is not None
    estimate = update.comparison.difference.estimate
    assert numbers[:3] == [update.accuracy.value, update.accuracy.low, update.accuracy.high]
    assert numbers[3:6] == [estimate.value, estimate.low, estimate.high]
    assert numbers[-3:] == list(update.per_seed_difference)
    for path in seeds_directory.glob("seed-*"):
        assert "accuracy" in Page((path / "report.html").read_text()).tables
    # Each seed's own number is that of its own evaluation.
    for seed, value in enumerate(update.per_seed):
        own = json.loads((seeds_directory / f"seed-{seed}" / "evaluate" / "eval.json").read_text())
        assert own["checkpoints"][1]["accuracy"]["value"] == value
    assert len(page.tables["audits"]) == 3
    counted: Counter[str] = Counter()
    for path in seeds_directory.glob("seed-*"):
        own = json.loads((path / "evaluate/eval.json").read_text())
        counted.update(own["checkpoints"][1]["outcomes"])
    assert page.tables["outcomes"][2][1] == [counted[name] for name in OUTCOMES]
    assert counted["truncated"], counted


def test_seeds_that_the_recipe_no_longer_has_are_left_out(tmp_path: Path, seeds_directory: Path) -> None:
    root = Path(shutil.copytree(seeds_directory, tmp_path / "ablation"))
    (root / "recipe.yaml").write_text("name: ablation\nseeds: [2, 0]\n")
    (root / "seed-7").mkdir()  # killed before anything was finished
    arms = Page(write_report(root).read_text()).tables["arms"]
    assert len(arms[2][1]) == len(Page((seeds_directory / "report.html").read_text()).tables["arms"][2][1]) - 1
    (root / "recipe.yaml").write_text("name: ablation\nseeds: []\n")
    with pytest.raises(RunError, match="no stage of this run is finished yet"):
        write_report(root)


def test_a_stage_that_read_what_has_changed_since_is_not_shown(tmp_path: Path, run_directory: Path) -> None:
    root = Path(shutil.copytree(run_directory, tmp_path / "run"))
    manifest = json.loads((root / "update/manifest.json").read_text())
    manifest["files"] = {"checkpoint/model.safetensors": {"sha256": "0" * 64, "size": 1}}
    (root / "update/manifest.json").write_text(json.dumps(manifest))
    run = read_run(root)
    assert "update" in [stage.name for stage in run.stages] and "evaluate" in run.outdated
    assert not run.evaluations
    assert "Not shown, because what they read has been made anew since: evaluate" in write_report(root).read_text()


def test_a_seed_without_an_evaluation_is_named(tmp_path: Path, seeds_directory: Path) -> None:
    root = shutil.copytree(seeds_directory, tmp_path / "ablation")
    shutil.rmtree(root / "seed-1" / "evaluate")
    with pytest.raises(RunError, match="seed-1: no finished evaluation"):
        render_seeds(root, [read_run(path) for path in sorted(root.glob("seed-*"))])


def test_seeds_evaluated_differently_are_not_mixed(tmp_path: Path, seeds_directory: Path) -> None:
    root = shutil.copytree(seeds_directory, tmp_path / "ablation")
    path = root / "seed-1" / "evaluate" / "eval.json"
    path.write_text(path.read_text().replace('"suffix": ""', '"suffix": " One word."'))
    with pytest.raises(RunError, match=r"evaluated differently: prompt\.suffix"):
        render_seeds(root, [read_run(path) for path in sorted(root.glob("seed-*"))])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.04, "0.0 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (3599.6, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_no_signed_zero() -> None:
    assert [signed(value) for value in (0.04, -0.04, 0.06, -2.0)] == ["0.0", "0.0", "+0.1", "−2.0"]


@needs_chromium
def test_a_browser_shows_it_without_a_complaint(run_directory: Path, html: str) -> None:
    with open_tab() as tab:
        tab.shape(390, 844)
        tab.open(run_directory / "report.html")
        shown, written = Page(tab.value("document.documentElement.outerHTML")), Page(html)
        # Wide tables scroll in their own boxes: the page itself never does.
        assert tab.value("document.documentElement.scrollWidth") <= 390
    assert shown.tables["accuracy"] == written.tables["accuracy"]
    assert sum(tag == "img" for tag, _ in shown.elements) == sum(tag == "img" for tag, _ in written.elements)
    # The console names what the content policy refused, and what could not be read.
    assert not tab.complaints


def test_the_stage_writes_both_copies(
    run_directory: Path, tmp_path: Path, rows: Rows, make: Callable[..., Path]
) -> None:
    from types import SimpleNamespace

    (run_directory / "report").mkdir(exist_ok=True)
    context = SimpleNamespace(directory=run_directory / "report")
    ReportStage().run(context)  # type: ignore[arg-type]
    assert (run_directory / "report" / "report.html").read_bytes() == (run_directory / "report.html").read_bytes()
