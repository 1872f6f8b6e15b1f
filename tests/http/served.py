"""A server of the tests, seen from outside."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

START_S = 120.0


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen[bytes]
    log: Path


@dataclass(frozen=True)
class App:
    url: str
    app: web.Application


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(home: Path, *flags: str) -> Iterator[Server]:
    """A server with the embedded model and nothing of the user's."""
    (home / "models").mkdir()
    (home / "config.json").write_text(json.dumps({"models_dir": str(home / "models")}))
    port = free_port()
    environment = {**os.environ, "MINERVA_CONFIG": str(home / "config.json")}
    command = [sys.executable, "-m", "minerva.serve", "--port", str(port), *flags]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=home, stdout=log, stderr=subprocess.STDOUT)
    running = Server(f"http://127.0.0.1:{port}", process, home / "log")
    try:
        wait_ready(running)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_ready(server: Server) -> None:
    deadline = time.monotonic() + START_S
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        try:
            with socket.create_connection(address, 1) as connection:
                connection.sendall(b"GET /ready HTTP/1.0\r\n\r\n")
                if b" 200 " in connection.recv(64):
                    return
        except OSError:
            pass
        time.sleep(0.1)
    pytest.fail(f"the server did not become ready:\n{server.log.read_text()[-4000:]}")
