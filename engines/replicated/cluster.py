"""Ray, on this machine or a cluster: started or joined with few words, and left again."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.base import EngineError, first_line
from engines.child import import_path, threads
from engines.settings import ReplicableSettings, VllmSettings, unplaced

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the coming default; without it Ray prints a notice
    "RAY_ENABLE_WORKER_PRESTART": "0",
    "RAY_enable_worker_prestart": "0",  # idle processes, started for workers that need another environment anyway
    "RAY_prestart_worker_first_driver": "0",
}
_CONNECT_S = 10.0
"""Seconds for a port of the cluster to open."""
_JOIN_S = 60.0
"""Seconds for the cluster behind it to take a driver in. Ray itself would try for a quarter of an hour."""
_STARTS = 3
"""Ray gives its own processes half a minute to start, which on a busy machine may be too little."""
_STORE = (80 << 20, 2 << 30)
"""Least and most bytes of shared memory for what travels between local processes. It is taken when it is needed."""
_SHARED_MEMORY = Path("/dev/shm")
_KINDS = {"CPU": "processor core", "GPU": "GPU"}
"""Ray's names of what workers take → ours."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A connection to Ray. `options` are those of a worker; `logs` is where its processes write."""

    ray: Any
    options: dict[str, Any]
    logs: str

    def worker(self) -> Any:
        """A new worker, which starts on its own time."""
        from engines.replicated.worker import Worker

        return self.ray.remote(Worker).options(**self.options).remote(str(Path.cwd()))

    def room(self) -> str:
        """What a worker takes and what is free of it, with the way out: for one that gets no place."""
        takes = {"CPU": self.options["num_cpus"], "GPU": self.options["num_gpus"]}
        there, free = self.ray.cluster_resources(), self.ray.available_resources()
        wanted = " and ".join(_amount(name, count) for name, count in takes.items() if count)
        left = " and ".join(
            f"{int(free.get(name, 0))} of {_amount(name, there.get(name, 0))}" for name in takes if takes[name]
        )
        return (
            f"each takes {wanted} of one machine, and free on the whole cluster are {left}; wait for what else runs on "
            "it (`ray status` says how much is taken), or give fewer engine.replicas"
        )


@contextmanager
def connected(settings: ReplicableSettings) -> Iterator[Cluster]:
    """A cluster with room for the workers. Raises `EngineError` with the way out.

    Ray's processes on this machine end with the thread that started them, however that ends. A connection that the
    process has already is used, and left open.
    """
    ray = import_ray()
    mine, session = not ray.is_initialized(), None
    if mine and (line := unplaced(settings)):
        raise EngineError(line)
    if mine and settings.address is not None:
        join(ray, settings.address)
    elif mine:
        session = start(ray, settings.replicas)
    try:
        yield Cluster(ray, options_of_worker(ray, settings), f"{session or '/tmp/ray/session_latest'}/logs")
    finally:
        if mine:
            ray.shutdown()
    if session is not None:
        shutil.rmtree(session, ignore_errors=True)  # hundreds of files; kept where something went wrong


def import_ray() -> Any:
    """The module `ray`, imported with its environment set. Raises `EngineError` with the way out."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ModuleNotFoundError as error:
        raise EngineError("engine.replicas need Ray; run: pip install 'trivium-reasoning[cluster]'") from error
    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


def start(ray: Any, processors: int) -> str:
    """Starts Ray on this machine, for so many workers: the directory of its logs and sockets."""
    room = shutil.disk_usage(_SHARED_MEMORY).free // 2 if _SHARED_MEMORY.is_dir() else _STORE[0]
    attempt = 0
    while True:
        attempt += 1
        try:
            context = ray.init(
                address="local",  # whatever RAY_ADDRESS says
                num_cpus=processors,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="error",
                object_store_memory=min(max(room, _STORE[0]), _STORE[1]),
            )
            return str(context.address_info["session_dir"])
        except Exception as error:  # Ray raises plain exceptions here
            ray.shutdown()
            if attempt == _STARTS:
                raise EngineError(
                    f"Ray could not be started on this machine ({first_line(error).rstrip('.')}); "
                    "free it of other work, or name a running cluster in engine.address"
                ) from error


def join(ray: Any, address: str) -> None:
    """Makes this process one of the cluster at HOST:PORT, or at `auto`. Raises `EngineError` with the way out."""
    way_out = "start one by `ray start --head`, or leave engine.address out to use this machine alone"
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), _CONNECT_S).close()
        except OSError as error:
            raise EngineError(f"engine.address: no Ray cluster answers at {address} ({error}); {way_out}") from error
    joined: Future[None] = Future()

    def join() -> None:
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error")
            joined.set_result(None)
        except Exception as error:
            joined.set_exception(error)

    threading.Thread(target=join, name="join", daemon=True).start()
    try:
        joined.result(_JOIN_S)
    except TimeoutError:
        raise EngineError(f"engine.address: what listens at {address} is no Ray cluster, or hangs; {way_out}") from None
    except Exception as error:
        raise EngineError(
            f"engine.address: no Ray cluster at {address} ({first_line(error).rstrip('.')}); {way_out}"
        ) from error


def options_of_worker(ray: Any, settings: ReplicableSettings) -> dict[str, Any]:
    """What each worker takes of the cluster. Raises `EngineError` where that is more than there is."""
    machines = [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]
    gpus, processors = (int(sum(machine.get(name, 0) for machine in machines)) for name in ("GPU", "CPU"))
    each = settings.tensor_parallel_size if isinstance(settings, VllmSettings) else 1
    if 0 < gpus < each * settings.replicas:
        wanted = f"engine.replicas: {settings.replicas} workers take {each * settings.replicas} GPUs"
        raise EngineError(f"{wanted}, there are {gpus}; give engine.replicas={gpus // each or 1}")
    most = int(max((machine.get("GPU", 0) for machine in machines), default=0))
    if 0 < most < each:
        wanted = f"engine.tensor_parallel_size: a worker takes {each} GPUs of one machine"
        raise EngineError(f"{wanted}, the largest has {most}; give engine.tensor_parallel_size={most}")
    places = sum(int(machine.get("GPU", 0)) // each for machine in machines)
    if 0 < places < settings.replicas:
        wanted = f"engine.replicas: {settings.replicas} workers take {each} GPUs of one machine each"
        raise EngineError(f"{wanted}, and there is room for {places}; give engine.replicas={places}")
    if processors < settings.replicas:
        wanted = f"engine.replicas: {settings.replicas} workers take as many processor cores"
        raise EngineError(f"{wanted}, the cluster has {processors}; give engine.replicas={processors}")
    environment = threads(settings.replicas, None if settings.address is None else processors)
    if path := import_path():
        environment["PYTHONPATH"] = path
    return {"num_cpus": 1, "num_gpus": each if gpus else 0, "runtime_env": {"env_vars": environment}}


def _amount(name: str, count: float) -> str:
    return f"{int(count)} {_KINDS[name]}{'' if count == 1 else 's'}"
