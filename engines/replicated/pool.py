"""N workers and the pieces they work on: who does what, who is lost, and who takes over.

All of it happens in one thread with an event loop; the callers, in threads of their own, get futures. A worker is
looked after by one task for its place: it starts the worker, brings it to the weights that are wanted, hands it one
piece after the other, and starts again with a new worker where one was lost.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import pickle
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from engines.base import EngineError
from engines.replicated.cluster import Cluster, connected
from engines.replicated.shared import check_images
from engines.replicated.worker import Open, versions
from engines.settings import ReplicableSettings

_TRIES = 3
"""Workers that are lost over one piece, or one after the other while they start, before that is an error."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """What a worker's engine has to hold: a checkpoint, and what was pushed since.

    `opened` counts openings: one checkpoint may be opened again. `pushed`: number of a push → Ray's reference of it.
    """

    checkpoint: str
    opened: int = 0
    pushed: Mapping[int, Any] = field(default_factory=dict)


@dataclass(slots=True, order=True)
class Piece:
    """Requests for one worker; those with low numbers are due first."""

    number: int
    method: str = field(compare=False)
    requests: Sequence[Any] = field(compare=False)
    answer: Future[list[Any]] = field(compare=False)
    lost: int = field(compare=False, default=0)
    """Workers that were lost at work on it."""
    taken: bool = field(compare=False, default=False)

    def take(self) -> bool:
        """False where the caller has no use for it any more."""
        self.taken = self.taken or self.answer.set_running_or_notify_cancel()
        return self.taken

    def fail(self, error: BaseException) -> None:
        if self.take():
            self.answer.set_exception(error)


class _Lost(Exception):
    """A worker died, or nothing was heard from it. `at_work`: over a piece that it had begun."""

    at_work = False


class _NoRoom(Exception):
    """The cluster gave a worker no place: why."""


class Pool:
    """`settings.replicas` workers with the weights of a checkpoint. Safe to use from several threads."""

    def __init__(self, settings: ReplicableSettings, checkpoint: str, opener: Open) -> None:
        """Returns once the workers hold the model. Raises `EngineError` where Ray or the workers cannot start."""
        self._settings = settings
        self._inner = settings.model_copy(update={"replicas": 1, "address": None})
        self._opener = opener
        self._versions = versions()
        self._numbers = itertools.count()
        self._pieces: list[Piece] = []
        self._weights = Weights(checkpoint)
        self._holds: dict[int, Weights | None] = dict.fromkeys(range(settings.replicas))
        """Place → what its worker holds; places that are given up are gone."""
        self._end: BaseException | None = None
        self._changed: asyncio.Condition
        self._closed: asyncio.Event
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cluster: Cluster
        started: Future[None] = Future()
        # Not the caller's thread: Ray's processes end with the thread that started them, and a caller's may end soon.
        self._thread = threading.Thread(target=self._run, args=(started,), name="replicas", daemon=True)
        self._thread.start()
        try:
            started.result()
            self.bring(self._weights)
        except BaseException:
            self.close()
            raise

    @property
    def weights(self) -> Weights:
        """What the workers hold."""
        return self._weights

    @property
    def workers(self) -> tuple[int, int]:
        """How many hold a model, of how many wanted."""
        return sum(held is not None for held in list(self._holds.values())), self._settings.replicas

    def submit(self, method: str, requests: Sequence[Any]) -> Future[list[Any]]:
        """The results of `generate` or `score`, by the first worker that is free. A future that is cancelled before is
        never worked on."""
        piece = Piece(next(self._numbers), method, requests, Future())
        self._in_loop(self._put(piece))
        return piece.answer

    def bring(self, weights: Weights) -> None:
        """Returns once all workers hold these weights. Raises `EngineError` where they cannot."""
        self._in_loop(self._bring(weights)).result()

    def share(self, value: Any) -> Any:
        """A reference by which workers find the value."""
        return self._cluster.ray.put(value)

    def close(self) -> None:
        """Ends the workers. What is under way fails."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._closed.set)
        self._thread.join()

    def _in_loop(self, what: Coroutine[Any, Any, None]) -> Future[None]:
        if self._loop is None or self._loop.is_closed():
            what.close()
            raise EngineError("the engine is closed")
        return asyncio.run_coroutine_threadsafe(what, self._loop)

    def _run(self, started: Future[None]) -> None:
        try:
            with connected(self._settings) as self._cluster:
                asyncio.run(self._serve(started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _serve(self, started: Future[None]) -> None:
        self._changed, self._closed = asyncio.Condition(), asyncio.Event()
        self._loop = asyncio.get_running_loop()
        places = [asyncio.create_task(self._keep(place)) for place in self._holds]
        started.set_result(None)
        # After an error too, so that whoever asks is told it.
        await self._closed.wait()
        await self._finish(EngineError("the engine is closed"))
        for place in places:
            place.cancel()
        await asyncio.gather(*places, return_exceptions=True)

    async def _put(self, piece: Piece) -> None:
        async with self._changed:
            if self._end is not None:
                piece.fail(self._end)
                return
            heapq.heappush(self._pieces, piece)
            self._changed.notify()

    async def _bring(self, weights: Weights) -> None:
        async with self._changed:
            self._weights = weights
            self._changed.notify_all()
            await self._changed.wait_for(
                lambda: self._end is not None or all(held is weights for held in self._holds.values())
            )
            if self._end is not None:
                raise self._end

    async def _finish(self, error: BaseException) -> None:
        """The end of all work, for this reason."""
        async with self._changed:
            if self._end is None:
                self._end = error
            for piece in self._pieces:
                piece.fail(self._end)
            self._pieces.clear()
            self._changed.notify_all()

    async def _keep(self, place: int) -> None:
        try:
            await self._look_after(place)
        except Exception as error:
            await self._finish(error)

    async def _look_after(self, place: int) -> None:
        """Workers in one place, one after the other; returns once there is no more to do or the place is given up."""
        starts = 0
        while self._end is None:
            worker = self._cluster.worker()
            try:
                machine = await self._welcome(worker)
                while self._end is None:
                    await self._refresh(worker, place)
                    piece = await self._next(place)
                    if piece is not None:
                        await self._do(worker, piece, machine)
                        starts = 0
            except _NoRoom as reason:
                await self._give_up(place, str(reason))
                return
            except _Lost as lost:
                self._holds[place] = None
                _log.warning("worker %d of %d %s; another one starts", place + 1, self._settings.replicas, lost)
                starts = 0 if lost.at_work else starts + 1  # else the piece counts it
                if starts == _TRIES:
                    what = f"{_TRIES} workers one after the other were lost while they started; the last {lost}"
                    await self._give_up(place, f"{what}. Their logs are in {self._cluster.logs}")
                    return
            finally:
                # Also one that is stopped and hears nothing: its machine's daemon ends it.
                self._cluster.ray.kill(worker)

    async def _give_up(self, place: int, reason: str) -> None:
        """Goes on without this place; where it was the last, nothing can."""
        del self._holds[place]
        if not self._holds:
            await self._finish(EngineError(reason))
        else:
            _log.warning("the others go on without worker %d: %s", place + 1, reason)
            async with self._changed:
                self._changed.notify_all()

    async def _welcome(self, worker: Any) -> str:
        """Waits until the cluster has started the worker: the name of its machine.

        Raises `_NoRoom` where it does not, `EngineError` where the worker runs other versions.
        """
        machine = ""
        try:
            async with asyncio.timeout(self._settings.room_s):
                async for told in self._news(worker.versions, wait_s=None):
                    machine, theirs = told
                    check_versions(theirs, self._versions)
        except TimeoutError:
            raise _NoRoom(
                f"Ray started no worker within {self._settings.room_s:g} s (engine.room_s): {self._cluster.room()}"
            ) from None
        return machine

    async def _next(self, place: int) -> Piece | None:
        """A piece to do, or None where other weights are wanted first, or nothing any more."""
        async with self._changed:
            while True:
                await self._changed.wait_for(
                    lambda: self._pieces or self._holds[place] is not self._weights or self._end is not None
                )
                if not self._pieces or self._holds[place] is not self._weights:
                    return None
                piece = heapq.heappop(self._pieces)
                if piece.take():
                    return piece

    async def _do(self, worker: Any, piece: Piece, machine: str) -> None:
        results: list[Any] = []
        begun = False
        try:
            # Pickled here and as a whole: Ray would look into each of the objects, twice.
            asked = pickle.dumps(piece.requests)
            async for part in self._news(worker.work, piece.method, asked, wait_s=self._settings.wait_s):
                begun = True
                results += pickle.loads(part)
            if [result.id for result in results] != [request.id for request in piece.requests]:
                raise AssertionError("a worker answered other requests than it was asked")
            await asyncio.to_thread(check_images, piece.requests, results, machine)
        except _Lost as lost:
            lost.at_work = begun
            piece.lost += begun
            if piece.lost < _TRIES:
                async with self._changed:
                    heapq.heappush(self._pieces, piece)
                    self._changed.notify()
            else:
                first, last = piece.requests[0].id, piece.requests[-1].id
                what = f"{_TRIES} workers were lost at work on the requests from {first} to {last}; the last {lost}"
                piece.fail(EngineError(f"{what}. Their logs are in {self._cluster.logs}"))
            raise
        except asyncio.CancelledError:
            piece.fail(EngineError("the engine is closed"))
            raise
        except Exception as error:  # the engine's own, as if it had been raised here
            piece.fail(error)
            return
        piece.answer.set_result(results)

    async def _refresh(self, worker: Any, place: int) -> None:
        """Opens and pushes what the worker lacks of the weights that are wanted."""
        held, wanted, wait_s = self._holds[place], self._weights, self._settings.wait_s
        if held is wanted:
            return
        last = max(held.pushed, default=-1) if held is not None and held.opened == wanted.opened else None
        if last is None:
            async for _ in self._news(worker.open, self._inner, wanted.checkpoint, self._opener, wait_s=wait_s):
                pass
        for number, reference in wanted.pushed.items():
            if last is None or number > last:
                async for _ in self._news(worker.update_weights, reference, wait_s=wait_s):
                    pass
        async with self._changed:
            self._holds[place] = wanted
            self._changed.notify_all()

    async def _news(self, method: Any, *arguments: Any, wait_s: float | None) -> AsyncIterator[Any]:
        """What a worker tells, until it is done. Raises `_Lost` after `wait_s` of silence, or what was raised there."""
        from ray.exceptions import RayError, RayTaskError

        stream = aiter(method.options(num_returns="streaming").remote(*arguments))
        while True:
            try:
                async with asyncio.timeout(wait_s):
                    told = await (await anext(stream))
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise _Lost(f"told nothing for {wait_s:g} s (engine.wait_s)") from None
            except RayTaskError as error:
                raise (error.cause if isinstance(error.cause, Exception) else error) from error
            except RayError as error:
                if "ModuleNotFoundError" in str(error):
                    raise EngineError(
                        "a worker does not find this program's code; install the same version on every machine of the "
                        f"cluster, or run from a folder that all of them share. Their logs are in {self._cluster.logs}"
                    ) from error
                raise _Lost(f"died ({type(error).__name__})") from error
            yield told


def check_versions(theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    """Raises `EngineError` where a worker runs other versions than the driver."""
    other = [
        f"{name} {theirs.get(name, 'none')} and not {here}" for name, here in ours.items() if theirs.get(name) != here
    ]
    if other:
        raise EngineError(
            f"a worker has other versions than this machine: {', '.join(other)}; install the same on every machine"
        )
