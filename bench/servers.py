"""Starts and stops the servers under test, each in a process group of its own."""

import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil

from bench.workloads import Workload

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0

# Settings of llama-server; without -np it takes four slots over one unified cache.
PEERS: dict[str, tuple[str, ...]] = {
    "default": (),
    "np16": ("-np", "16"),
    "np16-unified": ("-np", "16", "-kvu"),
}


@dataclass(frozen=True, slots=True)
class Command:
    """How to start a server; `{port}` is filled in."""

    argv: tuple[str, ...]


def minerva_command(python: str, model: Path, workload: Workload, threads: int, extra: tuple[str, ...]) -> Command:
    slots = workload.parallel
    context = slots * workload.request_tokens
    argv = (python, "-m", "minerva.serve", "-m", str(model), "--port", "{port}", "-np", str(slots), "-c", str(context))
    return Command((*argv, "-t", str(threads), *extra))


def llama_server_command(binary: str, model: Path, workload: Workload, threads: int, peer: str) -> Command:
    # Split slots each get an equal share of -c, so the whole must grow with them.
    slots = max(workload.parallel, 16 if peer.startswith("np16") else 4)
    context = slots * workload.request_tokens
    argv = (binary, "-m", str(model), "--port", "{port}", "-c", str(context), "-t", str(threads), "--no-webui")
    return Command((*argv, *PEERS[peer]))


class Server:
    """`with Server(command) as s:` s.url answers; s.peak_rss is the highest memory of the process tree, in bytes."""

    def __init__(self, command: Command, log_dir: Path | None = None) -> None:
        self._command = command
        self._log_dir = log_dir or Path(tempfile.gettempdir())
        self.peak_rss = 0

    def __enter__(self) -> "Server":
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        argv = [a.format(port=port) for a in self._command.argv]
        self.log = self._log_dir / f"bench-{Path(argv[0]).name}-{port}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        self._stopped = threading.Event()
        self._watch = threading.Thread(target=self._watch_memory, daemon=True)
        self._watch.start()
        try:
            self._wait_for_health()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop()
        if error is None:
            self.log.unlink(missing_ok=True)

    def _wait_for_health(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self._command.argv[0]} ended with {self._process.returncode}; see {self.log}")
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2) as response:
                    if response.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.1)
        raise TimeoutError(f"{self._command.argv[0]} not healthy after {START_TIMEOUT_S:.0f} s; see {self.log}")

    def _stop(self) -> None:
        self._stopped.set()
        self._signal_group(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_S)
        self._signal_group(signal.SIGKILL)  # whatever of the group is left
        self._process.wait()
        self._watch.join()

    def _signal_group(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _watch_memory(self) -> None:
        while not self._stopped.wait(0.25):
            self.peak_rss = max(self.peak_rss, _tree_rss(self._process.pid))


def _tree_rss(pid: int) -> int:
    total = 0
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for p in (root, *root.children(recursive=True)):
            total += p.memory_info().rss
    return total


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
