"""Medians over runs, ratios, the table and the JSON."""

import json
import platform
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.lag import TOLERATED_S
from bench.measure import Figures
from bench.workloads import WORKLOADS, Workload

MINERVA = "minerva"
PEER = "llama-server"
CEILING = "harness"


@dataclass(slots=True)
class Report:
    """All runs by workload and subject, in the order they were first seen."""

    settings: dict[str, Any]
    runs: dict[str, dict[str, list[Figures]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    failures: list[str] = field(default_factory=list)

    def add(self, workload: Workload, subject: str, figures: Figures) -> None:
        self.runs[workload.name][subject].append(figures)

    def median(self, workload: str, subject: str, figure: str = "score") -> float | None:
        runs = self.runs[workload].get(subject)
        return statistics.median(getattr(f, figure) for f in runs) if runs else None

    def best(self, workload: str, family: str) -> str | None:
        """The subject of `family` (its settings) with the best median score."""
        candidates = [s for s in self.runs[workload] if s.split()[0] == family]
        pick = max if WORKLOADS[workload].higher_is_better else min
        return pick(candidates, key=lambda s: self.median(workload, s) or 0.0, default=None)

    def ratio(self, workload: str, family: str) -> float | None:
        """Minerva over the best of `family`; above 1 Minerva is better, whichever way the metric points.

        The median of the ratios within each run, since what is shared by a run cancels there.
        """
        other = self.best(workload, family)
        if other is None or MINERVA not in self.runs[workload]:
            return None
        pairs = zip(self.runs[workload][MINERVA], self.runs[workload][other], strict=False)
        up = WORKLOADS[workload].higher_is_better
        ratios = [(m.score / o.score if up else o.score / m.score) for m, o in pairs if m.score and o.score]
        return statistics.median(ratios) if ratios else None

    def late_runs(self) -> int:
        return sum(f.client_lag_max > TOLERATED_S for by in self.runs.values() for fs in by.values() for f in fs)

    def save(self, path: Path) -> None:
        ratios = {w: {f: self.ratio(w, f) for f in (PEER, CEILING)} for w in self.runs}
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "machine": f"{platform.system()} {platform.machine()}",
            "settings": self.settings,
            "ratios": ratios,
            "failures": self.failures,
            "runs": {w: {s: [f.as_dict() for f in fs] for s, fs in by.items()} for w, by in self.runs.items()},
        }
        path.write_text(json.dumps(content, indent=1))

    def show(self, console: Console) -> None:
        console.print(self._ratios())
        console.print(self._latencies())
        if late := self.late_runs():
            console.print(
                f"[yellow]{late} runs (marked *) had a load generator over {1000 * TOLERATED_S:.0f} ms late: "
                "the machine was too busy, and their latencies and rates are not the server's.[/yellow]",
                highlight=False,
            )
        for failure in self.failures:
            console.print(f"[red]failed:[/red] {failure}", highlight=False)

    def _ratios(self) -> Table:
        table = Table(title="medians over runs; ratios above 1 favour Minerva")
        for column in ("workload", "metric", "harness", "minerva", "llama-server", "best of", "/ peer", "/ ceiling"):
            table.add_column(column, justify="left" if column in ("workload", "metric", "best of") else "right")
        for w in self.runs:
            ceiling, peer = self.best(w, CEILING), self.best(w, PEER)
            table.add_row(
                w, WORKLOADS[w].metric.value,
                _number(self.median(w, ceiling) if ceiling else None), _number(self.median(w, MINERVA)),
                _number(self.median(w, peer) if peer else None), ", ".join(s for s in (ceiling, peer) if s),
                _number(self.ratio(w, PEER)), _number(self.ratio(w, CEILING)),
            )  # fmt: skip
        return table

    def _latencies(self) -> Table:
        table = Table(title="latency in milliseconds, memory in MB")
        columns = {
            "TTFT p50": "ttft_p50", "p99": "ttft_p99", "TPOT": "tpot_p50", "ITL p50": "itl_p50", "ITL p99": "itl_p99",
            "ITL max": "itl_max", "e2e p50": "e2e_p50",
        }  # fmt: skip
        for name in ("workload", "subject"):
            table.add_column(name, no_wrap=True)
        for name in (*columns, "tok/s", "goodput", "errors", "short", "memory", "lag max"):
            table.add_column(name, justify="right")
        for w, by in self.runs.items():
            for s, runs in by.items():
                # The C harness has no streams, hence no latencies.
                streams = s.split()[0] != CEILING
                latencies = [_number(1000 * (self.median(w, s, c) or 0) if streams else None) for c in columns.values()]
                goodput = self.median(w, s, "goodput_req_s") if streams else None
                rates = [_number(self.median(w, s, "output_tok_s")), _number(goodput)]
                counts = [str(sum(getattr(f, n) for f in runs)) for n in ("errors", "short")]
                memory = f"{(self.median(w, s, 'peak_rss_bytes') or 0) / 1e6:.0f}"
                lag = max(f.client_lag_max for f in runs)
                mark = "*" if lag > TOLERATED_S else ""
                table.add_row(w, s, *latencies, *rates, *counts, memory, f"{1000 * lag:.0f}{mark}" if streams else "—")
        return table


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"
