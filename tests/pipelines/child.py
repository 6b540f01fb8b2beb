"""Runs `trivium` in child processes that die on demand.

    child.py trivium ARGUMENTS…         one command, in this process
    child.py serve MODULE…              one job a line on stdin, each in a fork of this process

A job is `{"arguments": […], "fault": null or a NAME, "at": N, "output": FILE}`. `kill before`, `kill after` and `full
disk` strike at the N-th call of `pipelines.files.publish`, the one function that puts files in place; `kill in save`
and `kill after save` in the N-th save inside a training, `kill rank 1` after that of the second of several processes,
and with `hang rank 1` that one does nothing from then on;
`kill driver` and `interrupt driver` when it has seen N steps of them; with `no model`, loading one is an error; with
`other folder`, all but the first of several processes look elsewhere. `"ranks": N` starts the command N times, as a
launcher does.

The answer is `{"code": exit code or minus the signal, "writes": N}`. Forks of a process that has imported the modules
named start at once. So do the processes of a training: torch's elastic agent, for which torchrun is a command, forks
them here. Test stages beside this file in `toys/` join the real ones.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import IO

sys.path[0] = str(Path(__file__).resolve().parents[2])

import pipelines.stages  # noqa: E402 (found where this checkout is, installed or not)

pipelines.stages.__path__.append(str(Path(__file__).parent / "toys"))


def serve(modules: list[str]) -> None:
    if modules:
        # TRL's trainers import vLLM where it is installed, for seconds; no child samples by it.
        importlib.import_module("trl.import_utils").is_vllm_available = lambda *arguments, **settings: False
        importlib.import_module("pipelines.launching.driver").start = Forked
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
    if job["ranks"]:
        _start_ranks(int(str(job["ranks"])))
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


def _start_ranks(count: int) -> None:
    """Goes on in `count` processes, this one the first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    rank = next((rank for rank in range(1, count) if os.fork() == 0), 0)
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ.update({name: str(number) for name, number in numbers.items()} | meeting)


class Forked:
    """Stands for the `Popen` of a launcher: its agent and the processes are forks, and import nothing anew."""

    def __init__(self, arguments: list[str], environment: dict[str, str], log: IO[bytes]) -> None:
        self.returncode: int | None = None
        ours, theirs = os.pipe()[::-1]
        self._pid = os.fork()
        if self._pid == 0:
            os.close(ours)
            os.setsid()
            for here, there in ((theirs, 0), (log.fileno(), 1), (log.fileno(), 2)):
                os.dup2(here, there)
            os.environ.clear()
            os.environ.update(environment)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            os._exit(_agent(arguments))
        os.close(theirs)
        self.stdin = os.fdopen(ours, "wb")

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *error: object) -> None:
        while self.poll() is None:
            time.sleep(0.01)


def _agent(arguments: list[str]) -> int:
    if "--nproc-per-node" not in arguments:
        _rank(*arguments[-2:])
        return 0
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=int(arguments[arguments.index("--nproc-per-node") + 1]),
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", local_addr="127.0.0.1", start_method="fork", max_restarts=0,
    )  # fmt: skip
    try:
        elastic_launch(config, _rank)(*arguments[-2:])
    except ChildFailedError as error:
        print(error, flush=True)
        return 1
    return 0


def _rank(root: str, name: str) -> None:
    from pipelines.launching.worker import main

    code = main(Path(root), name)
    sys.stderr.flush()
    os._exit(code) if code else None


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
    if fault in ("kill in save", "kill after save", "kill rank 1", "hang rank 1"):
        _arm_saves(fault, at)
    if fault in ("kill driver", "interrupt driver"):
        from pipelines.launching.driver import Followed

        more, seen = Followed.more, 0

        def look(self: Followed) -> int:
            nonlocal seen
            found = more(self)
            seen += found
            if seen - found < at <= seen:
                os.kill(os.getpid(), signal.SIGKILL if fault == "kill driver" else signal.SIGINT)
            return found

        Followed.more = look  # type: ignore[method-assign]
    if fault == "other folder":
        from pipelines.launching import joined

        there, joined._SHARED_WITHIN = joined._exchange, 0.2
        joined._exchange = lambda work: there({**work, "root": "/nowhere"})
    if fault == "no model":
        import engines.checkpoint
        import engines.transformers

        def refuse(*arguments: object, **settings: object) -> None:
            raise AssertionError("a model was loaded")

        engines.checkpoint.load_model = engines.transformers.load_model = refuse


def _arm_saves(fault: str, at: int) -> None:
    from transformers import Trainer

    name = "_save_optimizer_and_scheduler" if fault == "kill in save" else "_maybe_log_save_evaluate"
    real, calls = getattr(Trainer, name), 0

    def strike(self: object, *arguments: object, **settings: object) -> object:
        nonlocal calls
        saves = self.control.should_save or fault == "kill in save"  # type: ignore[attr-defined]
        calls += saves
        if calls == at and fault == "kill in save":
            os.kill(os.getpid(), signal.SIGKILL)  # The weights are written, the rest is not.
        result = real(self, *arguments, **settings)
        if calls == at and saves and (not fault.endswith("rank 1") or os.environ.get("RANK") == "1"):
            if fault == "hang rank 1":
                signal.pause()
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
