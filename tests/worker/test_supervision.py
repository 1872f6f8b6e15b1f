"""A worker that dies, hangs or cannot start: its requests are told, the next are served, nothing spins."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from minerva.engine.params import SamplingParams
from minerva.errors import InvalidModelError, MinervaError, ModelLoadError, UnavailableError, WorkerDiedError
from minerva.worker import client
from minerva.worker.client import Worker
from minerva.worker.generation import Generation
from minerva.worker.protocol import ChatPrompt, Delta, Finished, TextPrompt

from .conftest import kill, until

Start = Callable[..., Awaitable[Worker]]
ENDLESS = SamplingParams(temperature=0, ignore_eos=True, context_shift=True)
SHORT = SamplingParams(temperature=0, ignore_eos=True, max_tokens=8)


async def text(worker: Worker) -> str:
    generation = await worker.generate(TextPrompt(text="Hello"), SHORT)
    return "".join([event.text async for event in generation if isinstance(event, Delta)])


async def running(worker: Worker) -> Generation:
    """A generation that has begun and will not end soon."""
    generation = await worker.generate(TextPrompt(text="Hello"), ENDLESS)
    await anext(generation)
    return generation


async def rest(generation: Generation) -> list[Any]:
    return await asyncio.wait_for(_all(generation), 30)


async def _all(generation: Generation) -> list[Any]:
    return [event async for event in generation]


@pytest.mark.usefixtures("fast_restarts")
async def test_killed_while_it_loads_it_comes_up_all_the_same(start: Start) -> None:
    worker = await start()
    waiting = asyncio.ensure_future(worker.ready())
    await kill(worker)
    assert (await asyncio.wait_for(waiting, 60)).n_slots == 4
    assert worker.restarts == 1


@pytest.mark.usefixtures("fast_restarts")
async def test_killed_while_idle_the_next_request_is_served(start: Start) -> None:
    worker = await start()
    await worker.ready()
    before = await text(worker)
    pid = await kill(worker)
    await until(lambda: worker.state == "restarting")
    assert await asyncio.wait_for(text(worker), 60) == before
    assert worker.pid != pid


@pytest.mark.usefixtures("fast_restarts")
async def test_killed_while_it_answers_every_answer_ends_in_an_error_and_the_next_is_served(start: Start) -> None:
    worker = await start()
    generations = [await running(worker) for _ in range(3)]
    await kill(worker)
    for generation in generations:
        with pytest.raises(WorkerDiedError, match=r"tiny ended by signal SIGKILL") as raised:
            await rest(generation)
        assert raised.value.retry_after
    assert worker.running == 0
    assert await asyncio.wait_for(text(worker), 60)


@pytest.mark.usefixtures("fast_restarts")
async def test_what_was_asked_of_a_dead_worker_is_an_error_and_not_a_wait(start: Start) -> None:
    worker = await start()
    await worker.ready()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)  # so that nothing is answered before it dies
    asked = [asyncio.ensure_future(a) for a in (worker.tokenize("a"), worker.queue(), worker.stats(), text(worker))]
    await asyncio.sleep(0)
    await kill(worker)
    for answer in await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 30):
        assert isinstance(answer, WorkerDiedError)


async def test_the_pauses_grow_and_requests_wait_or_are_told_for_how_long(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "BACKOFF_S", (0.05, 0.1, 60.0))
    worker = await start()
    pauses = []
    for died in range(1, 4):
        await asyncio.wait_for(worker.ready(), 60)
        await kill(worker)
        await until(lambda died=died: worker.restarts == died and worker.state == "restarting")
        pauses.append(worker._next_start - time.monotonic())
    assert pauses[0] < 0.06
    assert pauses[1] < 0.11
    assert pauses[2] > 50
    with pytest.raises(UnavailableError, match="is being restarted") as raised:
        await worker.generate(TextPrompt(text="Hello"), SHORT)
    assert raised.value.retry_after is not None
    assert 50 < raised.value.retry_after <= 60


async def test_a_request_that_waits_for_a_restart_may_give_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BACKOFF_S", (4.0,))
    worker = await start()
    await worker.ready()
    await kill(worker)
    await until(lambda: worker.state == "restarting")
    with pytest.raises(UnavailableError, match="still loading") as raised:
        await worker.ready(timeout=0.01)
    assert raised.value.retry_after


@pytest.mark.usefixtures("fast_restarts")
async def test_a_worker_that_hangs_is_killed_and_replaced(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PING_EVERY_S", 0.05)
    monkeypatch.setattr(client, "HUNG_AFTER_S", 2.0)
    worker = await start()
    generation = await running(worker)
    pid = worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(WorkerDiedError):
        await rest(generation)
    assert await asyncio.wait_for(text(worker), 60)
    assert worker.pid != pid
    assert not psutil.pid_exists(pid)


@pytest.mark.usefixtures("fast_restarts")
@pytest.mark.parametrize("thread", ["minerva-engine", "minerva-writer"])
async def test_a_worker_that_lost_a_thread_is_replaced(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, thread: str
) -> None:
    """A process that reads requests and has nobody to compute or to send them would answer every ping."""
    (tmp_path / "sitecustomize.py").write_text(LOSES_A_THREAD.replace("THREAD", thread))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = await start()
    await worker.ready()
    monkeypatch.delenv("PYTHONPATH")
    generation = await worker.generate(TextPrompt(text="Hello"), ENDLESS)
    with pytest.raises(WorkerDiedError):
        await rest(generation)
    assert await asyncio.wait_for(text(worker), 60)


LOSES_A_THREAD = """
import sys
if "minerva.worker.process" in " ".join(sys.orig_argv):
    from minerva.engine import engine
    from minerva.worker import process
    def lost(*args, **kwargs):
        raise ZeroDivisionError
    if "THREAD" == "minerva-engine":
        engine.Engine._step = engine.Engine._fail_all = lost
    else:
        process.p.Events = lost
"""


@pytest.mark.usefixtures("fast_restarts")
async def test_a_template_that_never_ends_costs_its_own_worker_alone(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It holds a thread that prepares requests, and nothing in the process can end it."""
    monkeypatch.setattr(client, "PING_EVERY_S", 0.05)
    monkeypatch.setattr(client.sys, "executable", str(_impatient(tmp_path)))
    template = "{% if messages[0].content == 'bomb' %}{% for i in range(1000000000) %}x{% endfor %}{% endif %}hi"
    worker = await start(chat_template=template)
    with pytest.raises(WorkerDiedError):
        await asyncio.wait_for(worker.apply_template(ChatPrompt(messages='[{"role":"user","content":"bomb"}]')), 60)
    assert await asyncio.wait_for(text(worker), 60)


def _impatient(folder: Path) -> Path:
    """A python whose workers give a prompt half a second."""
    path = folder / "python"
    run = "import sys; from minerva.worker import process; process.PREPARE_LIMIT_S = 0.5; process.main()"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{run}" "$3"\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all" * 1000], ids=["empty", "cut off", "other"])
async def test_a_file_that_is_no_model_is_the_reason_not_to_come_up(
    start: Start, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    worker = await start(model=str(path))
    for _ in range(2):
        with pytest.raises((InvalidModelError, ModelLoadError), match=r"bad\.gguf") as raised:
            await asyncio.wait_for(worker.ready(), 60)
        assert not raised.value.retryable
    assert worker.state == "failed"
    assert worker._supervisor is not None
    await asyncio.wait_for(asyncio.shield(worker._supervisor), 10)
    assert worker.restarts == 0
    with pytest.raises(MinervaError, match=r"bad\.gguf"):
        await worker.generate(TextPrompt(text="Hello"), SHORT)


@pytest.mark.usefixtures("fast_restarts")
async def test_a_worker_that_never_comes_up_is_given_up_with_how_it_ended(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['minerva._core'] = None")  # not installed
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = await start()
    with pytest.raises(ModelLoadError, match="ended with status 1 while it loaded"):
        await asyncio.wait_for(worker.ready(), 60)
    assert worker.state == "failed"
    assert worker._supervisor is not None
    await asyncio.wait_for(asyncio.shield(worker._supervisor), 10)
    assert worker.restarts == client.LOAD_ATTEMPTS - 1


@pytest.mark.usefixtures("fast_restarts")
async def test_a_python_that_cannot_be_started_is_given_up_with_the_reason(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.sys, "executable", "/nowhere/python")
    worker = await start()
    with pytest.raises(ModelLoadError, match="tiny"):
        await asyncio.wait_for(worker.ready(), 30)


async def test_stopped_while_it_loads_it_is_gone_and_whoever_waited_is_told(start: Start) -> None:
    worker = await start()
    waiting = asyncio.ensure_future(worker.ready())
    await until(lambda: worker.pid is not None)
    pid = worker.pid
    assert pid is not None
    await asyncio.wait_for(worker.stop(30), 10)
    with pytest.raises(UnavailableError, match="unloaded"):
        await waiting
    assert not psutil.pid_exists(pid)
    assert worker.state == "stopped"


async def test_stopped_before_it_has_a_process_leaves_none(start: Start) -> None:
    worker = await start()
    await worker.stop(1)
    assert worker.state == "stopped"
    assert not [c for c in psutil.Process().children() if "minerva.worker" in " ".join(c.cmdline())]


@pytest.mark.parametrize("hung", [False, True], ids=["alive", "hung"])
async def test_stopped_while_it_answers_it_is_gone_and_every_answer_ends_in_an_error(start: Start, hung: bool) -> None:
    worker = await start()
    generations = [await running(worker) for _ in range(2)]
    pid = worker.pid
    assert pid is not None
    if hung:
        os.kill(pid, signal.SIGSTOP)
    await asyncio.wait_for(worker.stop(0.2 if hung else 10), 20)
    for generation in generations:
        with pytest.raises(UnavailableError, match="unloaded"):
            await rest(generation)
    assert not psutil.pid_exists(pid)
    assert (worker.state, worker.running) == ("stopped", 0)
    with pytest.raises(UnavailableError):
        await worker.generate(TextPrompt(text="Hello"), SHORT)


async def test_a_worker_that_becomes_ready_after_it_was_stopped_stays_stopped(start: Start) -> None:
    worker = await start()
    model = await worker.ready()
    stopping = asyncio.ensure_future(worker.stop(10))
    await asyncio.sleep(0)
    worker._on_frame(client.p.Ready(model))
    await stopping
    assert worker.state == "stopped"
    assert worker.restarts == 0


async def test_stopping_twice_is_stopping_once(start: Start) -> None:
    worker = await start()
    await worker.ready()
    await asyncio.gather(worker.stop(5), worker.stop(5))
    await worker.stop(5)
    assert worker.state == "stopped"


async def test_a_cancelled_answer_ends_and_frees_its_slot(start: Start) -> None:
    worker = await start(parallel=1)
    for _ in range(5):
        async with await running(worker):
            pass
    generation = await worker.generate(TextPrompt(text="Hello"), SHORT)
    assert isinstance((await rest(generation))[-1], Finished)
    pong = await worker.stats()
    assert (pong.running, pong.waiting, worker.running) == (0, 0, 0)
    assert pong.counters["requests_cancelled"] == 5


@pytest.mark.usefixtures("fast_restarts")
async def test_twenty_deaths_and_forty_cancelled_answers_leave_nothing_behind(start: Start) -> None:
    worker = await start()
    await text(worker)
    this = psutil.Process()
    before = this.num_fds(), len(this.children(recursive=True)), len(asyncio.all_tasks())
    for _ in range(20):
        generations = [await running(worker) for _ in range(3)]
        for generation in generations[1:]:
            generation.cancel()
        await kill(worker)
        with pytest.raises(WorkerDiedError):
            await rest(generations[0])
    await text(worker)
    await until(lambda: len(asyncio.all_tasks()) - 1 <= before[2], 5)  # one is this wait
    assert (this.num_fds(), len(this.children(recursive=True))) == before[:2]
    assert [*worker._generations, *worker._replies, *worker._pongs] == []


async def test_stopped_workers_leave_no_task_and_no_process(start: Start) -> None:
    this = psutil.Process()
    before = this.num_fds(), len(this.children(recursive=True)), len(asyncio.all_tasks())
    for loaded in (True, False, True):
        worker = await start()
        if loaded:
            await running(worker)
        await worker.stop(5)
    await until(lambda: len(asyncio.all_tasks()) - 1 <= before[2], 5)  # one is this wait
    assert (this.num_fds(), len(this.children(recursive=True))) == before[:2]
