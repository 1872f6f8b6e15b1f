"""Which models are in memory: loaded once, never taken from a request, gone when they make room."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from minerva.config import Settings
from minerva.engine.params import SamplingParams
from minerva.errors import InvalidModelError, MinervaError, ModelLoadError, ShuttingDownError, UnavailableError
from minerva.models.catalogue import EMBEDDED, Catalogue
from minerva.models.residency import Lease, Residency
from minerva.worker.protocol import Delta, TextPrompt

from .conftest import until

SHORT = SamplingParams(temperature=0, ignore_eos=True, max_tokens=8)
MakeResidency = Callable[..., Awaitable[Residency]]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, model_file: Callable[..., Path]) -> Path:
    """Three models: two that say the same, `other` that does not."""
    models = tmp_path_factory.mktemp("residency")
    for name in ("one", "two"):
        shutil.copy(EMBEDDED, models / f"{name}.gguf")
    shutil.copy(model_file(), models / "other.gguf")
    return models


@pytest.fixture
async def residency(folder: Path) -> AsyncIterator[MakeResidency]:
    made: list[Residency] = []

    async def make(models: Path = folder, **settings: Any) -> Residency:
        chosen = Settings(
            models_dir=models,
            **{"max_models": 1, "ctx_size": 512, "parallel": 4, "threads": 1, "n_gpu_layers": 0, "grace_s": 5}
            | settings,
        )
        made.append(Residency(Catalogue.of(chosen), chosen))
        return made[-1]

    yield make
    for each in made:
        await each.stop(1)


async def text(lease: Lease) -> str:
    generation = await lease.worker.generate(TextPrompt(text="Hello"), SHORT)
    return "".join([event.text async for event in generation if isinstance(event, Delta)])


async def ask(residency: Residency, model: str) -> str:
    async with residency.lease(model) as lease:
        assert lease.entry.id == model
        return await text(lease)


def resident(residency: Residency) -> list[str]:
    return [entry.id for entry, _ in residency.resident()]


def workers() -> list[psutil.Process]:
    """This process's own worker processes; servers of other tests may be its children, too."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE and "minerva.worker.process" in child.cmdline():
                found.append(child)
    return found


async def test_two_requests_at_once_load_a_model_once(residency: MakeResidency) -> None:
    models = await residency()
    async with models.lease("one") as first, models.lease("one") as second:
        assert first.worker is second.worker
    answers = await asyncio.gather(*(ask(models, "two") for _ in range(5)))
    assert len(set(answers)) == 1
    assert len(workers()) == 1


async def test_a_model_in_use_is_not_unloaded_and_who_needs_its_place_waits(residency: MakeResidency) -> None:
    models = await residency()
    async with models.lease("one") as lease:
        other = asyncio.ensure_future(ask(models, "two"))
        assert await text(lease)
        assert resident(models) == ["one"]
        assert not other.done()
    assert await asyncio.wait_for(other, 30)
    assert resident(models) == ["two"]


async def test_the_least_recently_used_idle_model_makes_room_and_its_process_is_gone(residency: MakeResidency) -> None:
    models = await residency(max_models=2)
    await ask(models, "one")
    async with models.lease("two") as lease:
        kept = lease.worker.pid
    await ask(models, "one")
    await ask(models, "two")
    pids = {entry.id: worker.pid for entry, worker in models.resident()}
    await ask(models, "other")
    assert sorted(resident(models)) == ["other", "two"]
    assert not psutil.pid_exists(pids["one"] or 0)
    assert psutil.pid_exists(kept or 0)


async def test_models_that_take_turns_answer_every_request_as_themselves(residency: MakeResidency) -> None:
    models = await residency()
    alone = {name: await ask(models, name) for name in ("one", "other")}
    assert alone["one"] != alone["other"]
    asked = ["one", "other"] * 8
    answers = await asyncio.wait_for(asyncio.gather(*(ask(models, name) for name in asked)), 60)
    assert answers == [alone[name] for name in asked]


async def test_a_resident_model_answers_while_another_is_being_unloaded(residency: MakeResidency) -> None:
    models = await residency(max_models=2, grace_s=10)
    await ask(models, "one")
    await ask(models, "two")
    (hung,) = [worker.pid for entry, worker in models.resident() if entry.id == "one"]
    assert hung is not None
    os.kill(hung, signal.SIGSTOP)  # it will not end before its grace period has
    waiting = asyncio.ensure_future(ask(models, "other"))
    await until(lambda: "one" not in resident(models))
    assert await asyncio.wait_for(ask(models, "two"), 5)
    assert not waiting.done()
    os.kill(hung, signal.SIGCONT)
    assert await asyncio.wait_for(waiting, 30)


async def test_two_that_need_the_same_place_never_have_more_models_in_memory_than_allowed(
    residency: MakeResidency,
) -> None:
    models = await residency()
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len(workers()))
            await asyncio.sleep(0.01)

    watching = asyncio.ensure_future(watch())
    await asyncio.gather(*(ask(models, name) for name in ("one", "two", "other", "one")))
    watching.cancel()
    assert most == 1


async def test_a_request_given_up_while_it_waits_for_room_leaves_the_place_to_others(residency: MakeResidency) -> None:
    models = await residency()
    async with models.lease("one"):
        given_up = [asyncio.ensure_future(ask(models, "two")) for _ in range(3)]
        await asyncio.sleep(0)
        for request in given_up[:2]:
            request.cancel()
        await asyncio.sleep(0)
    assert await asyncio.wait_for(given_up[2], 30)


async def test_a_request_given_up_while_it_unloads_another_leaves_nothing_behind(residency: MakeResidency) -> None:
    models = await residency(grace_s=0.5)
    await ask(models, "one")
    ((_, worker),) = models.resident()
    pid = worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    request = asyncio.ensure_future(ask(models, "two"))
    await until(lambda: not models.resident())
    request.cancel()
    await until(lambda: not psutil.pid_exists(pid), 10)
    assert await asyncio.wait_for(ask(models, "two"), 30)


async def test_a_request_given_up_while_its_model_loads_leaves_it_to_the_next(residency: MakeResidency) -> None:
    models = await residency()
    request = asyncio.ensure_future(ask(models, "one"))
    await until(lambda: bool(models.resident()))
    request.cancel()
    assert await asyncio.wait_for(ask(models, "two"), 30)


async def test_a_broken_model_fails_its_own_requests_and_takes_no_place(
    residency: MakeResidency, folder: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "one.gguf", tmp_path / "one.gguf")
    broken = bytearray((folder / "one.gguf").read_bytes())
    at = broken.index(b"llama.attention.head_count") + len(b"llama.attention.head_count") + 4
    broken[at : at + 4] = (7).to_bytes(4, "little")  # sound as a file, senseless as a model
    (tmp_path / "broken.gguf").write_bytes(broken)
    models = await residency(tmp_path)
    for _ in range(2):
        with pytest.raises((InvalidModelError, ModelLoadError)):
            await asyncio.wait_for(ask(models, "broken"), 30)
        assert await asyncio.wait_for(ask(models, "one"), 30)


async def test_when_the_server_stops_whoever_waits_or_comes_is_told(residency: MakeResidency) -> None:
    models = await residency()
    async with models.lease("one") as lease:
        waiting = asyncio.ensure_future(ask(models, "two"))
        await asyncio.sleep(0)
        generation = await lease.worker.generate(
            TextPrompt(text="Hello"), SamplingParams(ignore_eos=True, context_shift=True)
        )
        await anext(generation)
        await models.stop(5)
        with pytest.raises(UnavailableError):
            async for _ in generation:
                pass
    with pytest.raises(ShuttingDownError):
        await asyncio.wait_for(waiting, 10)
    with pytest.raises(ShuttingDownError):
        await ask(models, "one")
    assert not workers()


async def test_when_the_server_stops_while_a_model_loads_its_requests_are_told(residency: MakeResidency) -> None:
    models = await residency()
    waiting = [asyncio.ensure_future(ask(models, "one")) for _ in range(2)]
    await until(lambda: bool(models.resident()))
    await models.stop(5)
    for request in waiting:
        with pytest.raises(MinervaError):
            await asyncio.wait_for(request, 10)
    assert not workers()
