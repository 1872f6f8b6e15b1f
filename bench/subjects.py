"""What is compared: each subject turns a workload and a seed into figures."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.measure import Figures, Limits, measure
from bench.servers import PEERS, Command, Server, llama_server_command, minerva_command
from bench.workloads import Workload


@dataclass(frozen=True, slots=True)
class Setup:
    """What is common to all subjects of one invocation."""

    model: Path
    threads: int = 2
    temperature: float = 0.0
    limits: Limits = field(default_factory=Limits)
    harness: str | None = None
    llama_server: str | None = None
    python: str = sys.executable
    minerva_args: tuple[str, ...] = ()
    minerva: bool = True


@dataclass(frozen=True, slots=True)
class Subject:
    """`peer` subjects are settings of one competitor: only the best of them counts on each workload."""

    name: str
    run: Callable[[Workload, int], Figures]
    runs: Callable[[Workload], bool] = lambda w: True
    peer: bool = False


def subjects(setup: Setup, wanted: tuple[str, ...] = ()) -> list[Subject]:
    """Those that can run here, of the `wanted` ones (`harness`, `step-loop`, `minerva`,
    `llama-server`; none means all)."""
    found: list[Subject] = []
    if setup.harness:
        for layout, flags in (("split", ()), ("unified", ("--kv-unified",))):
            argv = (setup.harness, "--bench", "-m", str(setup.model))
            found.append(Subject(f"harness {layout}", _Loop(setup, (*argv, *flags)), runs=lambda w: w.in_c))
    if setup.minerva:
        step_loop = (setup.python, "-m", "bench.step_loop", str(setup.model))
        for layout, flags in (("split", ()), ("unified", ("--kv-unified",))):
            found.append(Subject(f"step-loop {layout}", _Loop(setup, (*step_loop, *flags)), runs=lambda w: w.in_c))
        found.append(Subject("minerva", _Http(setup, lambda w: _minerva(setup, w))))
    if setup.llama_server:
        for peer in PEERS:
            found.append(
                Subject(
                    f"llama-server {peer}",
                    _Http(setup, _peer_command(setup, peer)),
                    runs=lambda w, peer=peer: peer in w.peers,  # type: ignore[misc]
                    peer=True,
                )
            )
    return [s for s in found if not wanted or s.name.split()[0] in wanted]


def _minerva(setup: Setup, workload: Workload) -> Command:
    return minerva_command(setup.python, setup.model, workload, setup.threads, setup.minerva_args)


def _peer_command(setup: Setup, peer: str) -> Callable[[Workload], Command]:
    binary = setup.llama_server or ""
    return lambda w: llama_server_command(binary, setup.model, w, setup.threads, peer)


@dataclass(frozen=True, slots=True)
class _Http:
    setup: Setup
    command: Callable[[Workload], Command]

    def __call__(self, workload: Workload, seed: int) -> Figures:
        with Server(self.command(workload)) as server:
            figures = asyncio.run(measure(server.url, workload, seed, self.setup.temperature, self.setup.limits))
        figures.peak_rss_bytes = server.peak_rss
        return figures


@dataclass(frozen=True, slots=True)
class _Loop:
    """A decode loop without HTTP, in C or through the binding: a program with the harness's flags and output."""

    setup: Setup
    argv: tuple[str, ...]

    def __call__(self, workload: Workload, seed: int) -> Figures:
        argv = [
            *self.argv, "--threads", str(self.setup.threads),
            "--clients", str(workload.clients), "--requests", str(workload.requests),
            "--prompt-tokens", str(workload.prompt_tokens), "-n", str(workload.max_tokens),
            "--seed", str(seed),
        ]  # fmt: skip
        result = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
        return Figures(
            score=result["output_tok_s"],
            output_tok_s=result["output_tok_s"],
            total_tok_s=result["total_tok_s"],
            wall_s=result["wall_s"],
            peak_rss_bytes=result["peak_rss_bytes"],
        )
