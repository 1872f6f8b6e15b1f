"""llama.cpp's own answer: the C harness, which calls its API and nothing of Minerva's."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minerva import _core

HARNESS = Path(_core.__file__).parent / "bin" / "minerva-harness"


def harness_greedy(model: Path, prompts: list[list[int]], n: int, *, logits: Path | None = None) -> list[list[int]]:
    """The n tokens that llama_decode and argmax give after each prompt, each in a context of its own."""
    lines = "\n".join(" ".join(map(str, prompt)) for prompt in prompts)
    command = [str(HARNESS), "--greedy", "-m", str(model), "-n", str(n), "-t", "1", "--tokens-file", "/dev/stdin"]
    if logits is not None:
        command += ["--logits", str(logits)]
    if not HARNESS.is_file():
        raise AssertionError(f"the C harness is not built ({HARNESS} is missing): run `make build`, which builds it")
    done = subprocess.run(command, input=lines + "\n", capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["tokens"] for line in done.stdout.splitlines()]


def harness_logits(model: Path, prompts: list[list[int]], file: Path) -> NDArray[np.float32]:
    """The logits after each prompt, a row each."""
    harness_greedy(model, prompts, 1, logits=file)
    return np.fromfile(file, np.float32).reshape(len(prompts), -1)
