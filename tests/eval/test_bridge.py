import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.base import Decoding, Engine, Request
from engines.checkpoint import load_processor
from engines.open import open_engine
from engines.settings import TransformersSettings
from eval.bridge import BridgeResult, available, read_results, run
from eval.evaluate import trial_seed
from tasks.problem import TaskError
from tests.eval.harness_tasks import FILTERS, QUESTIONS, tiny_model, write_task

lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'trivium-reasoning[lm-eval]'")

# Folders of the harness's own tasks that are looked through by name; all 14,000 take half a minute.
LOOKED_AT = ("gsm8k", "humaneval", "arc", "score/math", "aime")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> Iterator[Engine]:
    # One row at a time, as the harness's own model is asked: no padding, the same arithmetic.
    engine = open_engine(TransformersSettings(batch_size=1), checkpoint)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> Path:
    """A task of which some gold answers are what the model says under one extraction or the other."""
    folder = tmp_path_factory.mktemp("task")
    blind = run(str(write_task(folder, "blind", num_fewshot=0)), engine, label="tiny")
    roles = itertools.cycle(("strict", "flexible", "neither"))
    golds = []
    for trial in blind.trials:
        found = {"strict": trial.extract.strict, "flexible": trial.extract.flexible}
        golds.append((found.get(next(roles)) if found["strict"] != found["flexible"] else None) or "42")
    return write_task(folder, "words", golds, num_fewshot=0)


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """The harness without its inventory of the machine, which starts pip and takes seconds."""
    import lm_eval.evaluator as evaluator

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator, "add_env_info", lambda results: results.update(lm_eval_version=lm_eval.__version__))
        yield


@pytest.fixture
def few_names(monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.tasks._index import TaskIndex

    def some(root: Path) -> Iterator[Path]:
        for name in LOOKED_AT:
            yield from sorted((root / name).rglob("*.yaml"))

    monkeypatch.setattr(TaskIndex, "_iter_yaml_files", staticmethod(some))


@pytest.fixture(scope="module")
def write_results(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, quick: None
) -> Callable[[Path], tuple[Path, dict[str, Any]]]:
    """Has the harness's own `hf` model answer a task, and its tracker write the files."""
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    def write(task: Path) -> tuple[Path, dict[str, Any]]:
        folder = tmp_path_factory.mktemp("written")
        tracker = EvaluationTracker(output_path=str(folder))
        results = lm_eval.simple_evaluate(
            model="hf",
            model_args={"pretrained": str(checkpoint), "dtype": "float32"},
            device="cpu",
            batch_size=1,
            tasks=[str(task)],
            task_manager=TaskManager(include_defaults=False),
            apply_chat_template=True,
            fewshot_random_seed=0,
            bootstrap_iters=0,
            evaluation_tracker=tracker,
        )
        samples = results.pop("samples")
        tracker.save_results_aggregated(results, samples)
        for name, rows in samples.items():
            tracker.save_results_samples(name, rows)
        return folder, results

    return write


@pytest.fixture(scope="module")
def ours(task: Path, engine: Engine) -> BridgeResult:
    return run(str(task), engine, label="tiny")


@pytest.fixture(scope="module")
def theirs(task: Path, write_results: Callable[[Path], tuple[Path, dict[str, Any]]]) -> BridgeResult:
    return read_results(write_results(task)[0])


def test_answers_and_verdicts_are_those_of_the_harness_own_model(ours: BridgeResult, theirs: BridgeResult) -> None:
    assert len(ours.trials) == len(theirs.trials) == len(QUESTIONS)  # two filters, not two trials
    for mine, other in zip(ours.trials, theirs.trials, strict=True):
        assert mine.problem_id == other.problem_id
        assert mine.completion == other.completion.strip()
        assert mine.extract == other.extract
        assert mine.reward == other.reward
        assert mine.gold == other.gold
    rewards = [(trial.reward.strict, trial.reward.flexible) for trial in ours.trials]
    assert {(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)} <= set(rewards)
    assert any(trial.finish == "stop" for trial in ours.trials)
    assert any(trial.finish == "length" for trial in ours.trials)
    assert not any("42" in trial.completion for trial in ours.trials)


def test_scores_are_the_numbers_that_the_harness_reports(ours: BridgeResult, theirs: BridgeResult) -> None:
    for result in (ours, theirs):
        reported = result.provenance["tasks"]["words"]["reported"]
        mean = sum(trial.score or 0.0 for trial in result.trials) / len(QUESTIONS)
        flexible = sum(trial.flexible_score or 0.0 for trial in result.trials) / len(QUESTIONS)
        assert mean == pytest.approx(reported["exact_match,strict-match"])
        assert flexible == pytest.approx(reported["exact_match,flexible-extract"])


def test_provenance_is_copied(checkpoint: Path, task: Path, engine: Engine, theirs: BridgeResult) -> None:
    template = load_processor(str(checkpoint)).chat_template
    mine = run(str(task), engine, label="tiny", limit=3, template=template)
    sha = hashlib.sha256(template.encode()).hexdigest()
    for result, used in ((mine, 3), (theirs, 8)):
        about = result.provenance
        assert json.loads(json.dumps(about, allow_nan=False)) == about
        assert about["lm_eval_version"] == lm_eval.__version__
        assert about["chat_template_sha"] == sha
        assert about["tasks"]["words"]["version"] == "3.0"
        assert about["tasks"]["words"]["n_samples"] == {"original": 8, "effective": used}
        assert about["partial"] == (used < 8)
        assert len(result.trials) == used
        assert all(trial.suite == "lm-eval:words" for trial in result.trials)
    assert mine.trials[0].suite_digest != theirs.trials[0].suite_digest


def test_turns_reach_the_engine(task: Path, engine: Engine) -> None:
    path = write_task(task.parent, "shots")
    trial = run(str(path), engine, label="tiny", limit=1, num_fewshot=2).trials[0]
    assert [turn["role"] for turn in trial.prompt] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert trial.prompt[0]["content"] == "Answer in a word."
    assert trial.prompt[-1]["content"] == f"Q: {QUESTIONS[0]}\nA:"
    asked = Request("q", trial.prompt, decoding=Decoding(12, stop=("42", "\n\n")))
    assert [each.text for each in engine.generate([asked])] == [trial.completion]
    other = run(str(path), engine, label="tiny", limit=1, num_fewshot=2, seed=1).trials[0]
    assert trial.prompt != other.prompt


def test_each_of_several_samples_is_a_trial_graded_alone(
    task: Path, engine: Engine, write_results: Callable[[Path], tuple[Path, dict[str, Any]]]
) -> None:
    first = {"function": "take_first"}
    vote = {"name": "maj", "filter": [*FILTERS[0]["filter"], {"function": "majority_vote"}, first]}
    changes: dict[str, Any] = {
        "repeats": 2,
        "num_fewshot": 0,
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 8, "do_sample": True, "temperature": 1.0},
        "filter_list": [vote, *({**each, "filter": [*each["filter"], first]} for each in FILTERS)],
    }
    path = write_task(task.parent, "twice", **changes)
    result = run(str(path), engine, label="tiny")
    places = [(trial.problem_id, trial.sample) for trial in result.trials]
    assert places == [(f"twice/{doc}", sample) for doc in range(len(QUESTIONS)) for sample in range(2)]
    assert all(trial.seed == trial_seed(0, trial.problem_id, trial.sample) for trial in result.trials)
    about = result.provenance["tasks"]["twice"]
    assert about["filters"] == {"strict": "strict-match", "flexible": "flexible-extract"}
    assert about["left_out"] == {"filter maj": "of several answers together"}
    assert not any(trial.outcome == "correct" for trial in result.trials)

    # The same prompts again, where what the second sample says is the gold answer.
    seconds = [trial.extract.strict or "42" for trial in result.trials if trial.sample == 1]
    again = run(str(write_task(task.parent, "twice", seconds, **changes)), engine, label="tiny")
    assert [trial.completion for trial in again.trials] == [trial.completion for trial in result.trials]
    expected = [
        trial.extract.strict is not None and trial.extract.strict == seconds[row // 2]
        for row, trial in enumerate(again.trials)
    ]
    assert [trial.outcome == "correct" for trial in again.trials] == expected
    assert sum(expected[1::2]) > 0 and not all(expected[::2])

    imported = read_results(write_results(path)[0])
    assert [(trial.problem_id, trial.sample) for trial in imported.trials] == places[::2]
    assert "ungraded" not in {trial.outcome for trial in imported.trials}
    counted = f"{len(QUESTIONS)} of {2 * len(QUESTIONS)} answers: lm-eval grades the first of each document"
    assert imported.provenance["tasks"]["twice"]["left_out"]["repeats"] == counted


def test_an_answer_that_the_engine_cannot_give_is_ungraded(task: Path, engine: Engine) -> None:
    path = write_task(task.parent, "long", generation_kwargs={"until": [], "max_gen_toks": 500})
    result = run(str(path), engine, label="tiny", limit=2)
    assert [trial.outcome for trial in result.trials] == ["ungraded"] * 2
    assert "the model's context is 512" in (result.trials[0].reason or "")
    assert result.trials[0].reward.strict is None and result.trials[0].score is None


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"unsafe_code": True}, "executes what the model writes"),
        ({"output_type": "multiple_choice", "doc_to_choice": "choices"}, "compares likelihoods"),
        ({"output_type": "loglikelihood"}, "compares likelihoods"),
        ({"output_type": "loglikelihood_rolling"}, "compares likelihoods"),
        ({"gen_prefix": "The answer is"}, "begins the answer itself"),
        ({"doc_to_image": "question"}, "shows images"),
        ({"generation_kwargs": {"until": [], "top_k": 5}}, "decodes with top_k"),
        ({"generation_kwargs": {"until": [], "max_gen_toks": 0}}, "max_new_tokens must be at least 1"),
        ({"dataset_kwargs": {"data_files": {"test": "nowhere.jsonl"}}}, "cannot be loaded"),
        ({"dataset_path": None}, "cannot be loaded"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(
    tmp_path: Path, engine: Engine, changes: dict[str, Any], line: str
) -> None:
    path = write_task(tmp_path, "odd", **changes)
    with pytest.raises(TaskError, match=line) as refused:
        run(str(path), engine, label="tiny")
    assert "odd" in str(refused.value) and "\n" not in str(refused.value)


def test_arguments_are_checked(tmp_path: Path, engine: Engine) -> None:
    path = str(write_task(tmp_path, "none", num_fewshot=0))
    with pytest.raises(TaskError, match="limit is 1 or more, not 0"):
        run(path, engine, label="tiny", limit=0)
    with pytest.raises(TaskError, match="made for 0 examples"):
        run(path, engine, label="tiny", num_fewshot=2)
    with pytest.raises(TaskError, match="no such file"):
        run(str(tmp_path / "nothing.yaml"), engine, label="tiny")
    (tmp_path / "broken.yaml").write_text("task: [", encoding="utf-8")
    with pytest.raises(TaskError, match="cannot be loaded"):
        run(str(tmp_path / "broken.yaml"), engine, label="tiny")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("lm-eval:gsm8kk", "no task `gsm8kk`; did you mean `gsm8k"),
        ("nothing-like-any-of-them", "lm-eval ls tasks"),
        ("humaneval", "executes what the model writes"),  # says so itself
        ("humaneval_plus", "executes what the model writes"),  # says so in the file that it includes
        ("score_robustness_math", "executes what the model writes"),  # a group of tasks that do not say so
        ("ai2_arc", "`arc_challenge` compares likelihoods"),  # a tag
    ],
)
def test_tasks_of_the_harness_are_refused_before_their_data_are_loaded(
    few_names: None, engine: Engine, name: str, line: str
) -> None:
    with pytest.raises(TaskError, match=line):
        run(name, engine, label="tiny")


def test_without_lm_eval_there_is_a_line_on_what_to_install(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    import importlib.util

    assert available() is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'trivium-reasoning[lm-eval]'" in (available() or "")
    with pytest.raises(TaskError, match="lm-eval"):
        run("gsm8k", engine, label="tiny")


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, few_names: None, quick: None, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """The harness's own command line, in this process: its exit code, and what stands on standard error."""
    from eval.bridge.__main__ import main

    def call(task: Path, *arguments: str, settings: str = "engine=transformers") -> tuple[int, str]:
        model = ["--model", "trivium", "--model_args", f"checkpoint={checkpoint},{settings}"]
        monkeypatch.setattr(sys, "argv", ["lm-eval", "run", *model, "--tasks", str(task), *arguments])
        code = main()
        return code, capsys.readouterr().err

    return call


def test_the_harness_own_command_line_has_our_engines(
    command: Callable[..., tuple[int, str]], task: Path, ours: BridgeResult, tmp_path: Path
) -> None:
    arguments = ["--apply_chat_template", "--batch_size", "1", "--log_samples", "--output_path", str(tmp_path)]
    code, errors = command(task, *arguments)
    assert code == 0, errors
    read = read_results(tmp_path)
    assert read.provenance["model"] == "trivium"
    assert len(read.provenance["chat_template_sha"]) == 64
    for mine, other in zip(ours.trials, read.trials, strict=True):
        assert (mine.completion, mine.extract, mine.reward) == (other.completion, other.extract, other.reward)
        assert mine.prompt_sha == other.prompt_sha


@pytest.mark.parametrize(
    ("changes", "arguments", "settings", "line"),
    [
        ({}, [], "engine=transformers", "add --apply_chat_template"),
        ({}, ["--apply_chat_template"], "engine=vlm", "--model_args engine"),
        ({}, ["--apply_chat_template"], "engine=transformers,dtyp=float32", "--model_args dtyp"),
        ({"gen_prefix": "It is"}, ["--apply_chat_template"], "engine=transformers", "'It is'"),
        (
            {"generation_kwargs": {"until": [], "max_gen_toks": 500}},
            ["--apply_chat_template"],
            "engine=transformers",
            "document 0: prompt and completion take",
        ),
        (
            {
                "output_type": "multiple_choice",
                "doc_to_choice": "choices",
                "doc_to_target": 0,
                "filter_list": None,
                "metric_list": None,
            },
            ["--apply_chat_template"],
            "engine=transformers",
            "compares likelihoods",
        ),
    ],
)
def test_its_command_line_says_in_a_line_what_cannot_be(
    command: Callable[..., tuple[int, str]],
    tmp_path: Path,
    changes: dict[str, Any],
    arguments: list[str],
    settings: str,
    line: str,
) -> None:
    code, errors = command(write_task(tmp_path, "odd", **changes), *arguments, settings=settings)
    assert code == 2
    assert line in errors.strip().splitlines()[-1]
