"""The workloads of BENCH.md, as a table."""

from dataclasses import dataclass, replace
from enum import Enum


class Metric(str, Enum):
    """What a workload is judged by."""

    THROUGHPUT = "tok/s"  # output tokens per second of wall time
    WORST_GAP = "worst gap s"  # longest time between two tokens of one stream: lower is better
    KEPT = "constrained / free"  # throughput under a schema over throughput without
    GOODPUT = "goodput req/s"  # requests per second that met the limits on TTFT and TPOT


@dataclass(frozen=True, slots=True)
class Intruder:
    """A long prompt that arrives while others decode."""

    words: int
    after_s: float
    max_tokens: int = 8


@dataclass(frozen=True, slots=True)
class Workload:
    """`clients` closed-loop clients share `requests` requests: each sends its next when its last is answered.

    `prompt_tokens` is what `words` words come to inside the chat template; it sizes contexts and the C harness.
    `peers` are the llama-server settings tried (servers.PEERS); the best one counts.
    """

    name: str
    clients: int
    requests: int
    words: int
    prompt_tokens: int
    max_tokens: int = 64
    metric: Metric = Metric.THROUGHPUT
    system_words: int = 0
    intruder: Intruder | None = None
    constrained: bool = False
    in_c: bool = False
    slots: int | None = None
    peers: tuple[str, ...] = ("default", "np16")

    @property
    def higher_is_better(self) -> bool:
        return self.metric is not Metric.WORST_GAP

    @property
    def parallel(self) -> int:
        """How many sequences a server should hold at once."""
        return self.slots or self.clients + (self.intruder is not None)

    @property
    def request_tokens(self) -> int:
        """Cells one request can need, rounded up as llama.cpp rounds (256)."""
        longest = max(self.prompt_tokens, 2 * self.intruder.words if self.intruder else 0)
        return -(-(longest + self.max_tokens + 32) // 256) * 256

    def quick(self) -> "Workload":
        """The same work, but only a round or two of it."""
        return replace(self, requests=min(self.requests, max(2, self.clients)))


WORKLOADS: dict[str, Workload] = {
    w.name: w
    for w in (
        Workload("single", clients=1, requests=6, words=103, prompt_tokens=111, in_c=True),
        Workload("four", clients=4, requests=16, words=103, prompt_tokens=111, in_c=True),
        Workload("sixteen", clients=16, requests=48, words=103, prompt_tokens=111, in_c=True),
        Workload(
            "shared-prefix", clients=16, requests=48, words=20, prompt_tokens=433, max_tokens=32, system_words=400
        ),
        Workload(
            "long-intruder", clients=8, requests=8, words=20, prompt_tokens=28, max_tokens=200,
            metric=Metric.WORST_GAP, intruder=Intruder(words=2000, after_s=2.0),
        ),
        Workload(
            "overload", clients=64, requests=128, words=40, prompt_tokens=48, max_tokens=32,
            metric=Metric.GOODPUT, slots=16,
        ),
        Workload(
            "constrained", clients=8, requests=24, words=40, prompt_tokens=48, max_tokens=48,
            metric=Metric.KEPT, constrained=True,
        ),
    )
}  # fmt: skip
