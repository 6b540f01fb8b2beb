"""Reading what lm-evaluation-harness writes, without it.

The files in `harness_files` were written by lm-eval 0.4.13 (its model `hf`, the model and the tasks of
`harness_tasks.py`, `--limit 4`), less the machine's description and the folders' names.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval.bridge import read_results, verdicts
from eval.bridge.rows import Outline, Row
from eval.bridge.verdicts import Reading
from eval.compare import Evaluated, compare
from eval.trial import Trial, TrialError, dump

FILES = Path(__file__).parent / "harness_files"


def test_two_filters_of_a_document_are_two_extractions_of_one_trial() -> None:
    result = read_results(FILES / "words")
    lines = [json.loads(line) for line in next(FILES.glob("words/samples_*")).read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 8 and len(result.trials) == 4
    for trial in result.trials:
        rows = {line["filter"]: line for line in lines if f"words/{line['doc_id']}" == trial.problem_id}
        strict, flexible = rows["strict-match"], rows["flexible-extract"]
        assert [[trial.completion]] == strict["resps"] == flexible["resps"]
        assert (trial.extract.strict or "[invalid]") == strict["filtered_resps"][0]
        assert (trial.extract.flexible or "[invalid]") == flexible["filtered_resps"][0]
        assert (trial.reward.strict, trial.reward.flexible) == (strict["exact_match"], flexible["exact_match"])
        assert trial.gold == strict["target"]
        assert trial.prompt == ({"role": "raw", "content": strict["arguments"]["gen_args_0"]["arg_0"]},)
        assert strict["prompt_hash"].startswith(trial.prompt_sha)
    assert {trial.outcome for trial in result.trials} == {"correct", "wrong", "unparsed"}
    assert Trial.model_validate_json(dump(result.trials[0])) == result.trials[0]


def _cut(answer: str, found: str, right: float) -> Trial:
    """A document that was answered up to the token limit, in which a filter of the harness's found `found`."""
    row = Row(
        doc_id=0, target="12", arguments={"gen_args_0": {"arg_0": "?"}}, resps=[[answer]], filtered_resps=[found],
        filter="strict", doc_hash="", prompt_hash="", target_hash="", exact_match=right,
    )  # fmt: skip
    outline = Outline("sums", "1", 0, "generate_until", 1, 1, {"strict": []}, {}, {"exact_match": True}, {})
    reading = verdicts.Reading("strict", "strict", "exact_match")
    sample = verdicts.Sample({"strict": row}, 0, answer, finish="length")
    return verdicts.trial(sample, outline, reading, label="m", suite="lm-eval:sums", suite_digest="d")


def test_an_answer_that_the_token_limit_ended_is_truncated_and_one_before_it_is_not() -> None:
    assert _cut("so #### 12 and then", "12", 1.0).outcome == "correct"
    assert _cut("so #### 11 and then", "11", 0.0).outcome == "wrong"
    assert _cut("so #### 1", "1", 0.0).outcome == _cut("so", "[invalid]", 0.0).outcome == "truncated"


def test_provenance_is_copied() -> None:
    about = read_results(FILES / "words").provenance
    written = json.loads(next(FILES.glob("words/results_*")).read_text(encoding="utf-8"))
    task = about["tasks"]["words"]
    assert about["lm_eval_version"] == "0.4.13" and about["model"] == "hf"
    assert about["chat_template_sha"] == written["chat_template_sha"]
    assert (task["version"], task["n_shot"]) == ("3.0", 0)
    assert task["n_samples"] == {"original": 8, "effective": 4} and about["partial"]
    assert task["reported"]["exact_match,strict-match"] == written["results"]["words"]["exact_match,strict-match"]
    assert read_results(FILES / "words").trials[0].label == "tiny"
    assert read_results(FILES / "words", label="mine").trials[0].label == "mine"


def test_of_repeats_those_that_were_graded_are_read_and_the_others_counted() -> None:
    result = read_results(FILES / "twice")
    assert [(t.problem_id, t.sample) for t in result.trials] == [(f"twice/{d}", 0) for d in range(4)]
    assert "ungraded" not in {trial.outcome for trial in result.trials}
    # The vote of both samples is no extraction of one of them, though it is the first filter.
    assert result.provenance["tasks"]["twice"]["filters"]["strict"] == "strict-match"
    assert result.provenance["tasks"]["twice"]["left_out"] == {
        "filter maj@2": "of several answers together",
        "repeats": "4 of 8 answers: lm-eval grades the first of each document",
    }
    assert not any("maj@2" in name for trial in result.trials for name in trial.scores)


def _with_metrics(**numbers: list[Any]) -> Reading:
    """What decides where the documents of `words` have these metrics alone."""
    path = next((FILES / "words").rglob("results_*.json"))
    outline = Outline.of(json.loads(path.read_text()), "words")
    file = next((FILES / "words").rglob("samples_words_*.jsonl"))
    raw = json.loads(file.read_text().splitlines()[0])
    for name in [*raw.get("metrics", []), "metrics"]:
        raw.pop(name, None)
    documents = [
        {"none": Row.model_validate({**raw, "filter": "none", "doc_id": place, **dict(zip(numbers, row, strict=True))})}
        for place, row in enumerate(zip(*numbers.values(), strict=True))
    ]
    return Reading.of(documents, replace(outline, higher_is_better=dict.fromkeys(numbers, True)))


def test_the_metric_that_decides_says_right_or_wrong() -> None:
    """As truthfulqa_gen has them: BLEU from 0 to 100 first, then whether it is higher for the true answers."""
    assert _with_metrics(bleu_max=[3.2, 1.1], bleu_acc=[0, 1], rouge1_max=[20.0, 0.5]).metric == "bleu_acc"
    assert _with_metrics(bleu_max=[0, 0], bleu_acc=[0, 1]).metric == "bleu_acc"
    assert _with_metrics(f1=[0.5, 1.0], em=[0, 1]).metric == "em"
    assert _with_metrics(f1=[0.5, 1.0], rouge=[0.1, 0.2]).metric == "f1"
    assert _with_metrics(acc=[0, 1], exact_match=[1, 0]).metric == "exact_match"
    with pytest.raises(TrialError, match=r"task `words`: its metric `bleu` goes up to 42.5, so 1 is not right by it"):
        _with_metrics(bleu=[42.5, 0.0], rouge=[0.5, 2.0])


def test_a_choice_is_the_most_likely_continuation() -> None:
    result = read_results(FILES / "colours")
    assert {trial.completion for trial in result.trials} <= {"red", "blue"}
    for trial in result.trials:
        right = trial.completion == ("red", "blue")[int(trial.gold or "")]
        assert (trial.outcome, trial.reward.strict) == (("correct", 1.0) if right else ("wrong", 0.0))
        assert trial.scores.keys() == {"acc_norm,none"}
    assert {trial.outcome for trial in result.trials} == {"correct", "wrong"}
    # F1 is a number for all documents together; for one of them the harness writes the pair (gold, found).
    assert result.provenance["tasks"]["colours"]["left_out"] == {"metric f1": "no single number for a document"}


def test_two_folders_can_be_compared() -> None:
    sides = [read_results(FILES / "words", label=label) for label in ("a", "b")]
    found = compare(*(Evaluated(side.trials[0].label, side.settings, side.trials) for side in sides))
    assert found.difference.estimate.value == 0


def test_results_become_a_run(tmp_path: Path) -> None:
    """With the numbers of the harness, to be looked at, compared and not overwritten; by a command without torch."""
    runs = tmp_path / "runs"

    def trivium(*arguments: object) -> subprocess.CompletedProcess[str]:
        code = (
            "import sys; from pipelines.cli import main\ntry: main()\n"
            "finally: print('HEAVY', [m for m in ('lm_eval', 'torch', 'transformers') if m in sys.modules])"
        )
        command = [sys.executable, "-c", code, *map(str, arguments), "--runs", str(runs)]
        return subprocess.run(command, capture_output=True, text=True)

    made = trivium("eval", "import", FILES / "words")
    assert made.returncode == 0 and made.stdout.splitlines()[-1] == "HEAVY []", made.stdout + made.stderr
    result = json.loads((runs / "lm-eval-tiny/lm-eval-words/eval.json").read_text())
    reported = result["provenance"]["harness"]["tasks"]["words"]["reported"]
    (found,) = result["checkpoints"]
    assert found["label"] == "tiny"
    assert found["accuracy"]["value"] == reported["exact_match,strict-match"]
    assert found["flexible"] == reported["exact_match,flexible-extract"]
    assert result["problems"] == {"used": 4, "original": 8} and result["partial"]
    assert "lm-eval:words · 4/8" in (runs / "lm-eval-tiny/report.html").read_text()
    again = trivium("eval", "import", FILES / "words")
    assert again.returncode == 2 and "give this one a --name of its own" in again.stderr
    assert trivium("eval", "import", FILES / "words", "--name", "other", "--label", "org/mine").returncode == 0
    difference = trivium("runs", "diff", "lm-eval-tiny", "other")
    assert "org-mine − tiny" in difference.stdout and "not compared" not in difference.stdout
    nothing = trivium("eval", "import", tmp_path)
    assert nothing.returncode == 2 and "no results_*.json" in nothing.stderr


def test_nothing_heavy_is_imported() -> None:
    heavy = ("lm_eval", "torch", "transformers", "datasets")
    code = (
        f"import sys; from pathlib import Path; import eval.bridge as b; b.available(); "
        f"b.read_results(Path({str(FILES / 'words')!r})); print([m for m in {heavy} if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def _lines(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        file = next(folder.glob("samples_*"))
        file.write_text("\n".join(change(file.read_text(encoding="utf-8").split("\n"))), encoding="utf-8")

    return apply


def _first(**changes: object) -> Callable[[Path], None]:
    """The first line with other values; None takes a field away."""

    def change(lines: list[str]) -> list[str]:
        row = {key: value for key, value in (json.loads(lines[0]) | changes).items() if value is not None}
        return [json.dumps(row), *lines[1:]]

    return _lines(change)


def _results(text: str) -> Callable[[Path], None]:
    return lambda folder: next(folder.glob("results_*")).write_text(text, encoding="utf-8") and None


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (_lines(lambda lines: [*lines[:3], lines[3][:50]]), "line 4: no JSON"),
        (_first(resps=None), "line 1, field `resps`"),
        (_first(resps=[]), "line 1, field `resps`"),
        (_first(doc_id="many"), "line 1, field `doc_id`"),
        (_first(arguments={}), "line 1, field `arguments`"),
        (_first(resps=[["another text"]]), "document 0 has other completions"),
        (_first(filter="third"), "document 0 has no line under the filter `strict-match`"),
        (_lines(lambda lines: [lines[0], *lines]), "document 0 comes twice"),
        (_lines(lambda lines: [line for line in lines if '"doc_id": 2' not in line]), "3 documents, but"),
        (_results("{"), "cannot be read as JSON"),
        (_results("{}"), "no results of lm-evaluation-harness, `'config'` is missing"),
        (lambda folder: next(folder.glob("samples_*")).unlink(), "--log_samples"),
        (lambda folder: next(folder.glob("results_*")).unlink(), "no results_"),
        (lambda folder: shutil.copy(next(folder.glob("results_*")), folder / "results_1.json") and None, "2 results"),
    ],
)
def test_damaged_files_are_refused_in_a_line(tmp_path: Path, damage: Callable[[Path], None], line: str) -> None:
    folder = tmp_path / "words"
    shutil.copytree(FILES / "words", folder)
    damage(folder)
    with pytest.raises(TrialError) as refused:
        read_results(folder)
    assert line in str(refused.value)
    assert str(folder) in str(refused.value) and "\n" not in str(refused.value)
