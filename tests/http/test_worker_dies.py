"""The death of a worker: its requests get an error in their own dialect, the next are served."""

from __future__ import annotations

import os
import signal
from typing import Any

import openai
import psutil
import pytest
from served import Server, wait_ready

ENDLESS: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 1900,
    "extra_body": {"ignore_eos": True},
}


def kill_worker(server: Server) -> None:
    children = psutil.Process(server.process.pid).children()
    (worker,) = [child for child in children if "minerva.worker" in " ".join(child.cmdline())]
    os.kill(worker.pid, signal.SIGKILL)


def test_a_stream_ends_in_an_error_event(server: Server, client: openai.OpenAI, model: str) -> None:
    stream = client.chat.completions.create(model=model, stream=True, **ENDLESS)
    assert next(stream).choices
    kill_worker(server)
    with pytest.raises(openai.APIError) as ended:
        list(stream)
    assert ended.value.code == "worker_died"
    wait_ready(server)
    assert client.chat.completions.create(model=model, messages=ENDLESS["messages"], max_tokens=2).choices
