"""A training in several processes: what they make is what one makes, and a run outlives each of them."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.launching import worker
from pipelines.launching.driver import why
from pipelines.launching.exchange import Exchange
from pipelines.launching.ranks import Ranks

BUILD = {"architecture": "llama", "hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "vocab_size": 300}
TUNE = {"kind": "tune", "steps": 4, "save_every": 2, "batch_size": 8, "accumulate": 2, "learning_rate": 1e-2}
TWO = "launch={processes: 2}"


def write(folder: Path, *stages: dict[str, Any], **further: Any) -> Path:
    rows = ({"question": f"what is {i} and {i * i}?", "answer": "a" * (i % 5 + 1)} for i in range(24))
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "name": "tiny",
        "model": {"build": BUILD},
        "data": {"labelled": {"task": "table", "source": str(folder / "data.jsonl")}},
        "stages": list(stages),
        **further,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def losses(run: Path, stage: str = "tune") -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["stage"] == stage]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = folder.glob("*.safetensors")
    return load_file(path)


def near(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    """Equal but for the order in which gradients were added up."""
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("lora", [None, {"r": 2}])
def test_two_processes_train_as_one(lora: dict[str, int] | None, real_children: Any, tmp_path: Path) -> None:
    recipe = write(tmp_path, TUNE | {"lora": lora})
    for runs, further in (("one", []), ("two", [TWO])):
        done = real_children.trivium("run", recipe, "--runs", tmp_path / runs, *further)
        assert done.code == 0, done.text
    one, two = tmp_path / "one/tiny", tmp_path / "two/tiny"
    assert losses(two) == pytest.approx(losses(one), rel=1e-5) and losses(one)[-1] < losses(one)[0]
    near(weights(one / "tune/checkpoint"), weights(two / "tune/checkpoint"))
    files = [sorted(str(path.relative_to(run)) for path in run.rglob("*")) for run in (one, two)]
    assert files[0] == files[1]
    again = real_children.trivium("run", recipe, "--runs", tmp_path / "two")
    assert "tune: up to date" in again.text, "the number of processes is no reason to train again"


def test_two_processes_train_a_reasoner_as_one(real_children: Any, tmp_path: Path) -> None:
    """Rows, symmetric copies, the carried estimate, checkpointed updates, the average of the weights, the best look."""
    stage = {
        "kind": "recur", "validation": "validation", "symmetry": "sudoku", "steps": 12, "batch_size": 8,
        "judge_every": 2, "keep": "best", "warmup_steps": 0, "gradient_checkpointing": True,
        "reasoner": {"hidden_size": 32, "heads": 2, "updates": 2, "segments": 3},
    }  # fmt: skip
    puzzles = {"task": "sudoku", "most_empty": 7}
    data = {"labelled": {**puzzles, "size": 20}, "validation": {**puzzles, "split": "validation", "size": 5}}
    recipe = write(tmp_path, stage, data=data)
    for runs, further in (("one", []), ("two", [TWO])):
        done = real_children.trivium("run", recipe, "--runs", tmp_path / runs, *further)
        assert done.code == 0, done.text
    one, two = tmp_path / "one/tiny", tmp_path / "two/tiny"
    assert len(losses(one, "recur")) == 12
    assert losses(two, "recur") == pytest.approx(losses(one, "recur"), rel=1e-4)
    for folder in ("", "last", "raw"):
        near(weights(one / "recur/checkpoint" / folder), weights(two / "recur/checkpoint" / folder))
    files = [sorted(str(path.relative_to(run)) for path in run.rglob("*")) for run in (one, two)]
    assert files[0] == files[1]


def test_a_killed_training_goes_on_in_another_number_of_processes(real_children: Any, tmp_path: Path) -> None:
    recipe = write(tmp_path, TUNE)
    assert real_children.trivium("run", recipe, "--runs", tmp_path / "whole").code == 0
    expected = tmp_path / "whole/tiny"

    struck = real_children.trivium("run", recipe, "--runs", tmp_path / "a", TWO, fault="kill rank 1", at=1)
    assert struck.code == 2, struck.text
    # A busy machine may let the other process fail, and the launcher see that, before this one is quite dead.
    line = (
        "error: tune: process 1 of 2 (was killed by SIGKILL, as happens where memory runs out|left without a word, .*)"
    )
    assert re.search(f"{line}; the same command goes on from step 2$", struck.text, re.MULTILINE), struck.text
    assert "Traceback" not in struck.text, struck.text
    resumed = real_children.trivium("run", recipe, "--runs", tmp_path / "a")
    assert resumed.code == 0 and "goes on after an interruption" in resumed.text, resumed.text

    struck = real_children.trivium("run", recipe, "--runs", tmp_path / "b", fault="kill after save", at=1)
    assert struck.code == -signal.SIGKILL, struck.text
    resumed = real_children.trivium("run", recipe, "--runs", tmp_path / "b", TWO)
    assert resumed.code == 0, resumed.text
    for name in ("a", "b"):
        assert losses(tmp_path / name / "tiny") == pytest.approx(losses(expected), rel=1e-5)
        near(weights(tmp_path / name / "tiny/tune/checkpoint"), weights(expected / "tune/checkpoint"))


def test_a_process_that_does_nothing_any_more_is_waited_for_no_longer_than_asked(
    real_children: Any, tmp_path: Path
) -> None:
    recipe, waits = write(tmp_path, TUNE), "launch={processes: 2, timeout: 12}"
    struck = real_children.trivium("run", recipe, "--runs", tmp_path, waits, fault="hang rank 1", at=1)
    assert struck.code == 2 and "error: tune: process 0 of 2 failed with " in struck.text, struck.text
    assert "12000ms" in struck.text and "goes on from step 2" in struck.text, struck.text


def test_a_killed_driver_leaves_no_process_behind(real_children: Any, tmp_path: Path) -> None:
    recipe = write(tmp_path, TUNE | {"steps": 12})
    struck = real_children.trivium("run", recipe, "--runs", tmp_path, TWO, fault="kill driver", at=3)
    assert struck.code == -signal.SIGKILL, struck.text
    log = tmp_path / "tiny/tune/trainer/launch.log"
    assert log.exists() and not (tmp_path / "tiny/tune/checkpoint").exists()
    wait_for(lambda: not list(holders(log)))
    resumed = real_children.trivium("run", recipe, "--runs", tmp_path, TWO)
    assert resumed.code == 0, resumed.text


def test_ctrl_c_reaches_the_processes_as_a_wish(real_children: Any, tmp_path: Path) -> None:
    recipe = write(tmp_path, TUNE | {"steps": 12, "save_every": 100})
    struck = real_children.trivium("run", recipe, "--runs", tmp_path, TWO, fault="interrupt driver", at=2)
    assert struck.code == 130 and "stopped: saved at step" in struck.text and "to go on: trivium run" in struck.text
    saved = int(struck.text.partition("saved at step ")[2].split()[0])
    assert 2 <= saved < 12
    resumed = real_children.trivium("run", recipe, "--runs", tmp_path)
    assert resumed.code == 0, resumed.text
    rows = [json.loads(line) for line in (tmp_path / "tiny/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 13))


def test_a_process_that_fails_says_why_in_the_run_s_own_line(real_children: Any, tmp_path: Path) -> None:
    reward = tmp_path / "bad.py"
    reward.write_text("def raises(prompts, completions, **columns):\n    raise KeyError('gold')\n")
    stage = {"kind": "reinforce", "steps": 2, "prompts": 2, "group": 2, "max_new_tokens": 6}
    recipe = write(tmp_path, stage | {"rewards": [{"reward": f"{reward}:raises"}]})
    asked = real_children.trivium("run", recipe, "--runs", tmp_path, TWO)
    lines = [line for line in asked.text.splitlines() if line.startswith("error: ")]
    (line,) = lines
    assert line.startswith(
        "error: reinforce: reward `raises` raised KeyError in bad.py, line 2: 'gold' (completion 0: "
    )
    assert asked.code == 2 and "Traceback" not in asked.text, asked.text


def test_a_run_joins_the_processes_of_a_launcher(real_children: Any, tmp_path: Path) -> None:
    reinforced = {"kind": "reinforce", "steps": 2, "prompts": 2, "group": 2, "max_new_tokens": 6}
    looped = {"kind": "reflect", "steps": 2, "batch_size": 4, "loop": {"layers": [0, 1]}}
    recipe = write(tmp_path, TUNE, reinforced, looped)
    one = real_children.trivium("run", recipe, "--runs", tmp_path / "one")
    assert one.code == 0, one.text
    two = real_children.trivium("run", recipe, "--runs", tmp_path / "two", ranks=2)
    assert two.code == 0 and two.text.count("tune: done") == two.text.count("reflect: done") == 1, two.text
    for stage in ("tune", "reflect"):
        found, expected = (losses(tmp_path / name / "tiny", stage) for name in ("two", "one"))
        assert found == pytest.approx(expected, rel=1e-4)
    assert (
        "tune: in the 2 processes that torchrun has started"
        in real_children.trivium("run", recipe, "--runs", tmp_path / "new", "--plan", ranks=2).text
    )


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("kill rank 1", "error: tune: process 1 of 2 was killed by SIGKILL"),
        ("other folder", "wrote; name a folder that all machines share with --runs DIR"),
    ],
)
def test_what_becomes_of_a_joined_process_is_one_line(
    fault: str, line: str, real_children: Any, tmp_path: Path
) -> None:
    asked = real_children.trivium("run", write(tmp_path, TUNE), "--runs", tmp_path, fault=fault, at=1, ranks=2)
    errors = [each for each in asked.text.splitlines() if each.startswith("error: ")]
    assert asked.code == 2 and len(errors) == 1 and line in errors[0] and "Traceback" not in asked.text, asked.text


def test_processes_leave_when_the_first_is_gone(real_children: Any, tmp_path: Path) -> None:
    output = tmp_path / "output.txt"
    struck = real_children.trivium(
        "run", write(tmp_path, TUNE), "--runs", tmp_path, fault="kill before", at=1, ranks=2, output=output
    )
    assert struck.code == -signal.SIGKILL
    wait_for(lambda: "error: process 1 on " in output.read_text())
    assert "the first process is gone" in output.read_text()
    wait_for(lambda: not list(holders(output)))


SRUN = """\
#!{python}
# Starts what it is given twice, as Slurm does on one node, each bound to cores of its own as far as there are.
import os, subprocess, sys
assert "--cpus-per-task=8" in sys.argv, sys.argv
cores = sorted(os.sched_getaffinity(0))
command = sys.argv[[each.startswith("-") for each in sys.argv[1:]].index(False) + 1:]
step = {{"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_NODEID": "0"}}
tasks = [
    subprocess.Popen(
        command,
        env={{**os.environ, **step, "SLURM_PROCID": str(n), "SLURM_LOCALID": str(n)}},
        preexec_fn=lambda: os.sched_setaffinity(0, {{cores[n % len(cores)]}}),
    )
    for n in range(2)
]
sys.exit(max(task.wait() for task in tasks))
"""


def test_the_job_for_slurm_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole processes, from the shell that Slurm starts to the two that train."""
    recipe = write(tmp_path, TUNE | {"lora": {"r": 2}})
    monkeypatch.chdir(tmp_path)
    arguments = ["launch", "slurm", str(recipe), "launch.processes=2", "--runs", "my runs"]
    made = CliRunner().invoke(app, arguments)
    assert made.exit_code == 0 and "sbatch tiny.sbatch" in made.output, made.output
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2 and "tiny.sbatch: exists already" in again.output
    assert subprocess.run(["bash", "-n", "tiny.sbatch"], check=False).returncode == 0
    job = (tmp_path / "tiny.sbatch").read_text()
    assert "--nodes=1\n" in job and "--ntasks-per-node=2\n" in job
    for name, text in (("srun", SRUN.format(python=sys.executable)), ("scontrol", "#!/bin/sh\necho 127.0.0.1\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "here", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}
    slurm["SLURM_CPUS_PER_TASK"] = "8"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    environment = {**os.environ, **slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run(["bash", "tiny.sbatch"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("tune: done") == 1
    checkpoint = tmp_path / "my runs/tiny/tune/checkpoint"
    assert {"adapter_model.safetensors", "training.json"} <= {path.name for path in checkpoint.iterdir()}


def holders(file: Path) -> Iterator[int]:
    """Processes that have a file open."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if link.readlink() == file:
                yield int(link.parts[2])


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)


def planned(real_children: Any, recipe: Path, *overrides: str) -> Any:
    return real_children.trivium("run", recipe, "--runs", recipe.parent, *overrides, "--plan")


def test_the_plan_prints_the_command_and_names_what_cannot_be(real_children: Any, tmp_path: Path) -> None:
    recipe = write(tmp_path, TUNE)
    assert "torch.distributed.run" not in planned(real_children, recipe).text
    asked = planned(real_children, recipe, TWO)
    (line,) = [line for line in asked.text.splitlines() if line.startswith("tune: ")]
    assert shlex.split(line)[1:] == [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1",
        "--nproc-per-node", "2", "-m", "pipelines.launching.worker", str(tmp_path / "tiny"), "tune",
    ]  # fmt: skip
    own = planned(real_children, recipe, TWO, "stages.tune.launch={processes: 4}")
    assert "--nproc-per-node 4" in own.text, "a stage may have its own"
    for override, said in (
        ("launch={processes: 3}", "batch_size 8 / accumulate 2 = 4 examples of a pass cannot be shared out to 3"),
        ("launch={proceses: 2}", "launch.proceses: unknown key; did you mean `processes`?"),
        ("launch={config: nowhere.yaml}", "launch.config: nowhere.yaml: no such file"),
    ):
        refused = planned(real_children, recipe, override)
        assert refused.code == 2 and said in refused.text and "Traceback" not in refused.text, refused.text
    two_nodes = planned(real_children, recipe, "launch={nodes: 2}")
    assert two_nodes.code == 0 and "trivium launch slurm RECIPE" in two_nodes.text


def test_what_this_machine_cannot_start_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*overrides: str) -> str:
        done = CliRunner().invoke(app, ["run", str(recipe), *overrides, "--runs", str(tmp_path / "runs")])
        assert done.exit_code == 2 and not (tmp_path / "runs").exists(), done.output
        return str(done.output)

    (tmp_path / "accelerate.yaml").write_text("distributed_type: FSDP\nfsdp_config: {fsdp_version: 2}\n")
    recipe = write(tmp_path, TUNE)
    assert "one machine cannot start processes on another" in said("launch={nodes: 2}")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    config = f"launch={{processes: 2, config: {tmp_path / 'accelerate.yaml'}}}"
    assert "without GPUs `accelerate launch` starts one process and shards nothing" in (line := said(config))
    assert "leave it out, and give launch.strategy: fsdp, and torchrun starts 2" in line
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "4 processes want a GPU each and this machine has 2; give launch.processes=2" in said("launch.processes=4")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert "Slurm started 2 processes, and MASTER_ADDR and MASTER_PORT do not say where" in said()


def test_processes_that_a_launcher_did_not_start_are_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `accelerate launch --cpu --num_processes 2` does: it starts one and says nothing."""
    monkeypatch.setenv("TRIVIUM_PROCESSES", "2")
    (tmp_path / "tune/trainer").mkdir(parents=True)
    assert worker.main(tmp_path, "tune") == 1
    failure = Exchange(tmp_path / "tune/trainer").failure()
    assert failure is not None and "2 processes were asked for and the launcher started 1" in failure.line


def test_a_process_by_itself_trains_nothing_that_no_driver_has_begun(tmp_path: Path) -> None:
    write(tmp_path, TUNE)
    (tmp_path / "tune/trainer").mkdir(parents=True)
    assert worker.main(tmp_path, "tune") == 1
    failure = Exchange(tmp_path / "tune/trainer").failure()
    assert failure is not None and "start it by `trivium run`" in failure.line


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, None),  # a batch script, which is none of the tasks
        ({"WORLD_SIZE": "1", "RANK": "0"}, None),
        (
            {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
            (3, 4, 1, 2, "torchrun"),
        ),
        (
            {"SLURM_STEP_NUM_TASKS": "5", "SLURM_PROCID": "4", "SLURM_LOCALID": "0", "SLURM_NODEID": "2",
             "SLURM_STEP_TASKS_PER_NODE": "2(x2),1"},
            (4, 5, 0, 1, "Slurm"),
        ),
    ],
)  # fmt: skip
def test_a_launcher_is_known_by_its_environment(environment: dict[str, str], expected: Any) -> None:
    found = Ranks.of({**environment, "MASTER_ADDR": "first", "MASTER_PORT": "29500"})
    if expected is None:
        assert found is None
    else:
        assert found == Ranks(*expected, "first", 29500)


def test_one_that_another_misses_is_named(tmp_path: Path) -> None:
    exchange = Exchange(tmp_path / "trainer")
    exchange.begin()
    exchange.log.write_text("exitcode  : 1")
    exchange.fail(0, "process 0 of 2 failed with RuntimeError: Connection closed by peer")
    assert why(exchange, "the launcher", 1, 2).startswith(
        "process 1 of 2 left without a word, as one does that is killed"
    )
    assert why(exchange, "the launcher", 1, 3) == "process 0 of 2 failed with RuntimeError: Connection closed by peer"
    exchange.fail(1, "process 1 of 2 failed with ValueError: no")
    assert why(exchange, "the launcher", 1, 2).startswith("process 0")
