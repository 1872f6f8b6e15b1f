"""Prometheus metrics: what the gateway counts itself, and what each worker says of its engine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

_NOT_IN_NAMES = re.compile(r"[^a-z0-9_]")


@dataclass(frozen=True, slots=True)
class EngineSample:
    """One resident model, as its worker reported it."""

    model: str
    state: str
    restarts: int
    running: int = 0
    waiting: int = 0
    counters: Mapping[str, float] = field(default_factory=dict)
    gauges: Mapping[str, float] = field(default_factory=dict)


class Metrics:
    """One per gateway; a registry of its own, so that several can live in one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "minerva_http_requests", "HTTP requests ended.", ["method", "route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "minerva_http_request_seconds",
            "Time until the last byte.",
            ["route"],
            buckets=BUCKETS,
            registry=self._registry,
        )

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """`route` is a route's pattern, never a path that a client made up."""
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def page(self, samples: Iterable[EngineSample]) -> bytes:
        engines = CollectorRegistry()
        engines.register(_Engines(list(samples)))
        return generate_latest(self._registry) + generate_latest(engines)


class _Engines(Collector):
    def __init__(self, samples: list[EngineSample]) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Metric]:
        ready = GaugeMetricFamily("minerva_model_ready", "1 when the worker takes requests.", labels=["model"])
        running = GaugeMetricFamily("minerva_requests_running", "Requests in a slot.", labels=["model"])
        waiting = GaugeMetricFamily("minerva_requests_waiting", "Requests without a slot.", labels=["model"])
        restarts = CounterMetricFamily("minerva_worker_restarts", "Workers that had to be replaced.", labels=["model"])
        for sample in self._samples:
            ready.add_metric([sample.model], float(sample.state == "ready"))
            running.add_metric([sample.model], sample.running)
            waiting.add_metric([sample.model], sample.waiting)
            restarts.add_metric([sample.model], sample.restarts)
        yield from (ready, running, waiting, restarts)
        yield from self._families(CounterMetricFamily, [sample.counters for sample in self._samples])
        yield from self._families(GaugeMetricFamily, [sample.gauges for sample in self._samples])

    def _families(
        self, kind: type[CounterMetricFamily | GaugeMetricFamily], figures: list[Mapping[str, float]]
    ) -> Iterator[Metric]:
        """A family for each name that some engine reports."""
        for name in sorted({name for reported in figures for name in reported}):
            family = kind(_named(name), f"The engine's {name}.", labels=["model"])
            for sample, reported in zip(self._samples, figures, strict=True):
                if name in reported:
                    family.add_metric([sample.model], reported[name])
            yield family


def _named(name: str) -> str:
    return "minerva_engine_" + _NOT_IN_NAMES.sub("_", name.lower()).removesuffix("_total")
