"""The gateway's handle of one model: its worker process, supervised, and the calls that go to it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import sys
import time
from typing import Any

from minerva.engine.options import EngineOptions
from minerva.engine.params import SamplingParams
from minerva.errors import BY_NAME, InvalidModelError, MinervaError, ModelLoadError, UnavailableError, WorkerDiedError
from minerva.worker import protocol as p
from minerva.worker.connection import Connection
from minerva.worker.generation import Generation

log = logging.getLogger(__name__)

BACKOFF_S = (0.2, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Pause before the first, second, … restart in a row."""

HEALTHY_AFTER_S = 60.0
"""A worker that lived this long starts over at the first pause."""

LOAD_ATTEMPTS = 3
"""A worker that ends so often before it was ever ready has failed: the model or the installation ends it."""

PING_EVERY_S = 5.0
HUNG_AFTER_S = 60.0
"""A worker that answers no ping for so long is killed and restarted."""

SPIN_COUNT = "10000"
"""How long llama.cpp's threads spin at a barrier before they sleep. OpenMP's own choice, for ever, takes the core from
whatever the barrier waits for as soon as anything else runs on the machine; the gateway does.
"""

LONG_WAIT_S = 5.0
"""A request does not wait for a restart further off than this: it gets 503 with Retry-After."""


class Worker:
    """`state`: loading, ready, restarting, failed (it will not come up) or stopped."""

    def __init__(self, options: EngineOptions, *, name: str) -> None:
        self.options = options
        self.name = name
        self.model: p.WorkerModel | None = None
        self.state = "loading"
        self.progress = 0.0
        self.restarts = 0
        self._ids = itertools.count(1)
        self._generations: dict[int, Generation] = {}
        self._replies: dict[int, asyncio.Future[Any]] = {}
        self._pongs: list[asyncio.Future[p.Pong]] = []
        self._connection: Connection | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._lost = asyncio.Event()
        self._changed = asyncio.Event()
        self._error: MinervaError | None = None
        self._next_start = 0.0
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def running(self) -> int:
        """Generations that have not ended."""
        return len(self._generations)

    async def start(self) -> None:
        """Spawns the process; it loads in the background."""
        self._supervisor = asyncio.create_task(self._supervise(), name=f"worker {self.name}")

    async def ready(self, timeout: float | None = None) -> p.WorkerModel:
        """Waits for the model. Raises `InvalidModelError` or `ModelLoadError` when it will not come up,
        `UnavailableError` when that takes longer than `timeout` or a restart is far off.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.state != "ready":
            if self._error is not None:
                raise self._error
            pause = self._next_start - time.monotonic()
            if self.state == "restarting" and pause > LONG_WAIT_S:
                raise UnavailableError(f"the model {self.name} is being restarted", retry_after=pause)
            left = None if deadline is None else deadline - time.monotonic()
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except asyncio.TimeoutError:
                raise UnavailableError(f"the model {self.name} is still loading", retry_after=5.0) from None
        assert self.model is not None
        return self.model

    async def generate(
        self,
        prompt: p.Prompt,
        sampling: SamplingParams,
        *,
        priority: int = 0,
        timeout_s: float | None = None,
        namespace: str = "",
    ) -> Generation:
        """Starts a request. Cached prefixes are shared within a `namespace` only."""
        await self.ready()
        id = next(self._ids)
        generation = Generation(id, self._cancel)
        self._generations[id] = generation
        self._send(p.Generate(id, prompt, sampling, priority, timeout_s, namespace))
        return generation

    async def tokenize(
        self, text: str, *, add_special: bool = False, parse_special: bool = True, with_pieces: bool = False
    ) -> p.Reply:
        await self.ready()
        frame = p.Tokenize(next(self._ids), text, add_special, parse_special, with_pieces)
        reply: p.Reply = await self._ask(frame)
        return reply

    async def detokenize(self, tokens: list[int]) -> str:
        await self.ready()
        reply: p.Reply = await self._ask(p.Detokenize(next(self._ids), tokens))
        return reply.text

    async def apply_template(self, prompt: p.ChatPrompt) -> str:
        await self.ready()
        reply: p.Reply = await self._ask(p.ApplyTemplate(next(self._ids), prompt))
        return reply.text

    async def queue(self) -> list[p.QueueItem]:
        """Running requests, then waiting ones in order."""
        await self.ready()
        answer: p.Queue = await self._ask(p.Inspect(next(self._ids)))
        return answer.items

    async def stats(self) -> p.Pong:
        """What the engine is doing, and its counters."""
        await self.ready()
        pong: asyncio.Future[p.Pong] = asyncio.get_running_loop().create_future()
        self._pongs.append(pong)
        self._send(p.Ping(time.monotonic()))
        return await pong

    async def stop(self, grace_s: float) -> None:
        """Ends the process: its generations end in an error, and after `grace_s` it is killed; a loading one is at
        once. When this returns the process is gone.
        """
        was_ready = self.state == "ready"
        unloaded = UnavailableError(f"the model {self.name} is being unloaded", retry_after=5.0)
        self._set_state("stopped", unloaded)
        self._send(p.Shutdown())
        if was_ready and self._process is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._process.wait(), max(grace_s, 0.05))
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor})
        self._kill()
        if self._process is not None:
            await self._process.wait()
        self._drop(unloaded)

    async def _supervise(self) -> None:
        failures = 0
        while True:
            started = time.monotonic()
            ended = await self._live()
            self._drop(WorkerDiedError(f"the worker of {self.name} ended {ended}", retry_after=1.0))
            if self.state in ("failed", "stopped"):
                return
            failures = 0 if time.monotonic() - started > HEALTHY_AFTER_S else failures
            pause = BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]
            failures += 1
            if self.model is None and failures == LOAD_ATTEMPTS:
                log.error("the worker of %s ended %s while it loaded, as before: giving it up", self.name, ended)
                why = f"the worker of {self.name} ended {ended} while it loaded: its log says why"
                self._set_state("failed", ModelLoadError(why))
                return
            self.restarts += 1
            self._next_start = time.monotonic() + pause
            log.error("the worker of %s ended %s: restarting in %.1f s", self.name, ended, pause)
            self._set_state("restarting")
            await asyncio.sleep(pause)

    async def _live(self) -> str:
        """A process from its start to its end; tells how it ended."""
        try:
            await self._spawn()
        except OSError as e:
            log.error("cannot start a worker for %s: %s", self.name, e)
            return f"before it started ({e})"
        watch = asyncio.create_task(self._watch(), name=f"watch {self.name}")
        try:
            await self._lost.wait()
        finally:
            watch.cancel()
        self._kill()
        assert self._process is not None
        return describe_exit(await self._process.wait())

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        self._lost.clear()
        self._process = None
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "minerva.worker.process",
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                env=_environment(),
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        loop = asyncio.get_running_loop()
        _, self._connection = await loop.create_connection(
            lambda: Connection(self._on_frame, self._lost.set), sock=ours
        )
        self.progress = 0.0
        self._send(p.Load(self.options))

    async def _watch(self) -> None:
        """Kills a worker that is alive and answers nothing."""
        while True:
            await asyncio.sleep(PING_EVERY_S)
            if self.state != "ready":
                continue
            try:
                await asyncio.wait_for(self.stats(), HUNG_AFTER_S)
            except asyncio.TimeoutError:
                log.error("the worker of %s has not answered for %.0f s: killing it", self.name, HUNG_AFTER_S)
                self._kill()
            except MinervaError:
                return

    def _on_frame(self, frame: p.ToGateway) -> None:
        if isinstance(frame, p.Events):
            for event in frame.items:
                self._deliver(event)
        elif isinstance(frame, p.Pong):
            for pong in self._pongs:
                if not pong.done():
                    pong.set_result(frame)
            self._pongs.clear()
        elif isinstance(frame, p.Reply | p.Queue):
            reply = self._replies.pop(frame.id, None)
            if reply is not None and not reply.done():
                reply.set_result(frame)
        elif isinstance(frame, p.Failed):
            self._deliver(frame)
        elif isinstance(frame, p.Loading):
            self.progress = frame.progress
            self._changed.set()
        elif isinstance(frame, p.Ready):
            self.model = frame.model
            self.progress = 1.0
            self._set_state("ready")
        else:
            kind = BY_NAME.get(frame.error, ModelLoadError)
            permanent = kind if issubclass(kind, InvalidModelError | ModelLoadError) else ModelLoadError
            self._set_state("failed", permanent(frame.message))

    def _deliver(self, event: p.Event) -> None:
        generation = self._generations.get(event.id)
        if generation is not None:
            generation.put(event)
            if isinstance(event, p.Finished | p.Failed):
                del self._generations[event.id]
        elif isinstance(event, p.Failed):
            reply = self._replies.pop(event.id, None)
            if reply is not None and not reply.done():
                reply.set_exception(event.exception())

    async def _ask(self, frame: p.Tokenize | p.Detokenize | p.ApplyTemplate | p.Inspect) -> Any:
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._replies[frame.id] = reply
        self._send(frame)
        return await reply

    def _cancel(self, id: int) -> None:
        if self._generations.pop(id, None) is not None:
            self._send(p.Cancel(id))

    def _send(self, frame: p.Frame) -> None:
        if self._connection is not None:
            self._connection.send(frame)

    def _set_state(self, state: str, error: MinervaError | None = None) -> None:
        """Whatever a worker still says, stopped is stopped."""
        if self.state == "stopped":
            return
        self.state = state
        self._error = error
        self._changed.set()

    def _drop(self, error: MinervaError) -> None:
        """Everything under way gets the error."""
        failed = self._error or error
        for generation in self._generations.values():
            generation.fail(failed)
        waiters: list[asyncio.Future[Any]] = [*self._replies.values(), *self._pongs]
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(failed)
        self._generations.clear()
        self._replies.clear()
        self._pongs.clear()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    return environment


def describe_exit(code: int) -> str:
    if code < 0:
        return f"by signal {signal.Signals(-code).name}"
    return f"with status {code}"
