"""A gateway that is killed leaves no worker behind, whatever the worker was doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from minerva.models.catalogue import EMBEDDED

GATEWAY = """
import asyncio, sys
from minerva.engine.options import EngineOptions
from minerva.engine.params import SamplingParams
from minerva.worker.client import Worker
from minerva.worker.protocol import TextPrompt

async def main(model, doing):
    worker = Worker(EngineOptions(model=model, ctx_size=512, parallel=2, threads=1, gpu_layers=0), name="tiny")
    await worker.start()
    if doing == "loading":
        while worker.pid is None:
            await asyncio.sleep(0.001)
    else:
        await worker.ready()
    if doing == "answering":
        for _ in range(2):
            asking = SamplingParams(ignore_eos=True, context_shift=True)
            await anext(await worker.generate(TextPrompt(text="Hello"), asking))
    print(worker.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("deaf", [False, True], ids=["", "after it stopped reading"])
@pytest.mark.parametrize("doing", ["loading", "idle", "answering"])
def test_the_worker_ends_too(doing: str, deaf: bool, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        gateway = subprocess.Popen(
            [sys.executable, "-c", GATEWAY, str(EMBEDDED), doing], stdout=subprocess.PIPE, stderr=log
        )
    assert gateway.stdout is not None
    try:
        worker = psutil.Process(int(gateway.stdout.readline()))
        if deaf:
            os.kill(gateway.pid, signal.SIGSTOP)  # what the worker sends piles up unread
    finally:
        gateway.kill()
        gateway.wait()
        gateway.stdout.close()
    worker.wait(20)
    assert "Traceback" not in (tmp_path / "log").read_text()
