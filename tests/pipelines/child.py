"""Runs `trivium` in child processes that die on demand.

    child.py trivium ARGUMENTS…         one command, in this process
    child.py serve MODULE…              one job a line on stdin, each in a fork of this process

A job is `{"arguments": […], "fault": null or a NAME, "at": N, "output": FILE}`. `kill before`, `kill after` and `full
disk` strike at the N-th call of `pipelines.files.publish`, the one function that puts files in place; `kill in save`
and `kill after save` in the N-th save inside a training; with `no model`, loading one is an error. The answer is
`{"code": exit code or minus the signal, "writes": N}`. Forks of a process that has imported the modules named start at
once. Test stages beside this file in `toys/` join the real ones.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import signal
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

import pipelines.stages  # noqa: E402 (found where this checkout is, installed or not)

pipelines.stages.__path__.append(str(Path(__file__).parent / "toys"))


def serve(modules: list[str]) -> None:
    if modules:
        # TRL's trainers import vLLM where it is installed, for seconds; no child samples by it.
        importlib.import_module("trl.import_utils").is_vllm_available = lambda *arguments, **settings: False
    for module in ["pipelines.runner", "pipelines.store", "pipelines.tables", "rich.console", *modules]:
        importlib.import_module(module)
    for line in sys.stdin:
        job = json.loads(line)
        counted, count = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(counted)
            _work(job, count)
        os.close(count)
        _, status = os.waitpid(pid, 0)
        writes = len(os.read(counted, 1 << 16))
        os.close(counted)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), "writes": writes}), flush=True)


def _work(job: dict[str, object], count: int) -> None:
    output = os.open(str(job["output"]), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    _arm(str(job["fault"]), int(str(job["at"])), count)
    code = 1
    try:
        trivium([str(each) for each in job["arguments"]])  # type: ignore[attr-defined]
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _arm(fault: str, at: int, count: int) -> None:
    from pipelines import files

    real, calls = files.publish, 0

    def publish(temporary: Path, final: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == at and fault == "kill before":
            os.kill(os.getpid(), signal.SIGKILL)
        if calls == at and fault == "full disk":
            raise OSError(errno.ENOSPC, "No space left on device", str(temporary))
        real(temporary, final)
        os.write(count, b".")
        if calls == at and fault == "kill after":
            os.kill(os.getpid(), signal.SIGKILL)

    files.publish = publish
    if fault in ("kill in save", "kill after save"):
        _arm_saves(fault, at)
    if fault == "no model":
        import engines.checkpoint
        import engines.transformers

        def refuse(*arguments: object, **settings: object) -> None:
            raise AssertionError("a model was loaded")

        engines.checkpoint.load_model = engines.transformers.load_model = refuse


def _arm_saves(fault: str, at: int) -> None:
    from transformers import Trainer

    name = {"kill in save": "_save_optimizer_and_scheduler", "kill after save": "_maybe_log_save_evaluate"}[fault]
    real, calls = getattr(Trainer, name), 0

    def strike(self: object, *arguments: object, **settings: object) -> object:
        nonlocal calls
        saves = self.control.should_save or fault == "kill in save"  # type: ignore[attr-defined]
        calls += saves
        if calls == at and fault == "kill in save":
            os.kill(os.getpid(), signal.SIGKILL)  # The weights are written, the rest is not.
        result = real(self, *arguments, **settings)
        if calls == at and saves:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(Trainer, name, strike)


def trivium(arguments: list[str]) -> None:
    from pipelines.cli import main

    sys.argv = ["trivium", *arguments]
    main()


if __name__ == "__main__":
    mode, *rest = sys.argv[1:]
    {"trivium": trivium, "serve": serve}[mode](rest)
