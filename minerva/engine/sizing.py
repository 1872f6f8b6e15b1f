"""Choices that fit the machine: threads, context, slots, GPU layers. Pure functions of what was measured."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import psutil

from minerva.engine.options import EngineOptions
from minerva.errors import ModelLoadError

DEFAULT_PARALLEL = 16
DEFAULT_CONTEXT = 16384
KV_SHARE = 0.5
"""The part of free memory that the KV cache may take by itself, when nobody said how much."""

GPU_MARGIN = 1 << 30
"""Bytes of a GPU's memory left for compute buffers and for others."""

SMALL_MODEL = 16 << 20
"""Bytes. A step of a smaller model takes less time than its threads need to meet."""

CELL_PADDING = 256
"""llama.cpp rounds a cache up to whole multiples of so many cells."""


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """`n_cells` is the whole KV cache, `n_ctx` what one request may use of it, in tokens."""

    n_cells: int
    n_ctx: int
    n_slots: int
    notes: list[str]


def choose_sizes(options: EngineOptions, *, n_ctx_train: int, kv_bytes_per_token: int, memory: int) -> Sizes:
    """Context and slots within `memory` bytes free for the KV cache. Raises `ModelLoadError` when -c cannot fit."""
    notes = []
    n_slots = options.parallel or DEFAULT_PARALLEL
    share = int(memory * KV_SHARE / max(kv_bytes_per_token, 1))
    fits = share if options.ctx_size is None else 1 << 40
    wanted = options.ctx_size or min(n_ctx_train or DEFAULT_CONTEXT, 1 << 24)
    n_ctx = min(wanted, max(fits, CELL_PADDING))
    if options.ctx_size is None and n_ctx < wanted:
        notes.append(f"context of {n_ctx} tokens, not the model's {wanted}: the rest does not fit in memory")
    if options.ctx_size and n_ctx_train and n_ctx > n_ctx_train:
        notes.append(f"context of {n_ctx} tokens is more than the {n_ctx_train} that the model was trained with")
    roomy = max(n_ctx, DEFAULT_CONTEXT) if options.ctx_size is None else n_ctx
    if options.kv_unified is False and options.kv_size is None:
        roomy = n_ctx * n_slots
    n_cells = pad(options.kv_size or max(n_ctx, min(roomy, fits)))
    needed = n_cells * kv_bytes_per_token
    if needed > memory:
        raise ModelLoadError(
            f"a KV cache of {n_cells} tokens needs {mib(needed)}, {mib(memory)} are free: "
            f"use --ctx-size {share // CELL_PADDING * CELL_PADDING} or less"
        )
    if options.kv_unified is False:
        n_ctx = min(n_ctx, n_cells // n_slots)
    return Sizes(n_cells=n_cells, n_ctx=min(n_ctx, n_cells), n_slots=n_slots, notes=notes)


def choose_gpu_layers(*, n_layers: int, model_bytes: int, gpu_free: int, wanted: int | None) -> int:
    """Layers to offload, the output layer counted as one: all when they fit, else as many as do."""
    if wanted is not None:
        return min(wanted, n_layers + 1)
    if gpu_free <= GPU_MARGIN:
        return 0
    per_layer = model_bytes / (n_layers + 1)
    return min(n_layers + 1, int((gpu_free - GPU_MARGIN) / per_layer))


def choose_threads(model_bytes: int) -> int:
    """All physical cores, but one for a model so small that its threads would mostly wait for each other."""
    return 1 if model_bytes < SMALL_MODEL else physical_cores()


def physical_cores() -> int:
    """Physical cores this process may use: its affinity, a container's quota, and no hyper-thread twice."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    siblings = {_siblings(cpu) for cpu in allowed}
    cores = len(siblings) if hasattr(os, "sched_getaffinity") else psutil.cpu_count(logical=False) or len(allowed)
    quota = _cgroup_quota()
    return max(1, min(cores, quota) if quota else cores)


def _siblings(cpu: int) -> str:
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text().strip()
    except OSError:
        return str(cpu)


def _cgroup_quota() -> int | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, round(int(quota) / int(period)))


def free_memory() -> int:
    """Bytes that can be had without swapping, within a container's limit."""
    free: int = psutil.virtual_memory().available
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return free
    return max(0, min(free, limit - used))


def pad(n: int) -> int:
    return -(-n // CELL_PADDING) * CELL_PADDING


def mib(n: int) -> str:
    return f"{n / (1 << 20):,.0f} MiB"
