"""The child: one model, one engine, one socket. Started by `worker.client` as `python -m minerva.worker.process FD`.

Threads: the main one reads frames; a small pool renders and tokenises prompts; the engine steps; the writer turns
outputs into events and sends them. The end of the socket is the end of the process.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from minerva.engine.answer import Answer
from minerva.engine.loading import Loaded, load
from minerva.engine.messages import Event
from minerva.engine.output import Output
from minerva.errors import EngineError, MinervaError, RequestError
from minerva.worker import protocol as p

log = logging.getLogger(__name__)

PREPARE_THREADS = 2
PREPARE_LIMIT_S = 120.0
"""A request that is prepared for longer (by a chat template that never ends, say) takes its thread for ever: the worker
ends and is replaced.
"""
SWITCH_INTERVAL_S = 0.0005
"""The engine's thread gets the GIL back this soon after a step, whatever the others are doing."""


class WorkerProcess:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._stream = sock.makefile("rb", buffering=1 << 16)
        self._send_lock = threading.Lock()
        self._pool = ThreadPoolExecutor(PREPARE_THREADS, thread_name_prefix="minerva-prepare")
        self._outputs: queue.SimpleQueue[Output] = queue.SimpleQueue()
        self._answers: dict[int, Answer] = {}
        self._prepare_since: dict[int, float] = {}  # by thread
        self._lock = threading.Lock()  # guards the two sets
        self._preparing: set[int] = set()
        self._cancelled: set[int] = set()  # while they were being prepared
        self._loaded: Loaded

    def run(self) -> None:
        first = self._receive()
        if not isinstance(first, p.Load):
            raise SystemExit("a worker's first frame must be Load")
        if not self._load(first):
            return
        threading.Thread(target=self._write, name="minerva-writer", daemon=True).start()
        while (frame := self._receive()) is not None:
            if isinstance(frame, p.Shutdown):
                self._loaded.engine.stop()
                break
            self._handle(frame)

    def _load(self, frame: p.Load) -> bool:
        reported = -1.0

        def progress(value: float) -> None:
            nonlocal reported
            if value - reported >= 0.02 or value >= 1.0:
                reported = value
                self._send(p.Loading(value))

        try:
            self._loaded = loaded = load(frame.options, progress)
        except MinervaError as e:
            self._send(p.LoadFailed(type(e).__name__, e.message))
            return False
        loaded.engine.start()
        self._send(p.Ready(describe(loaded)))
        return True

    def _handle(self, frame: p.ToWorker) -> None:
        if isinstance(frame, p.Generate):
            with self._lock:
                self._preparing.add(frame.id)
            self._pool.submit(self._guard, frame.id, self._generate, frame, time.monotonic())
        elif isinstance(frame, p.Cancel):
            self._cancel(frame.id)
        elif isinstance(frame, p.Ping):
            self._check_prepare()
            engine = self._loaded.engine
            counters = {name: getattr(engine.counters, name) for name in engine.counters.__struct_fields__}
            self._send(p.Pong(frame.sent, engine.running, engine.waiting, counters, engine.gauges()))
        elif isinstance(frame, p.Inspect):
            self._send(p.Queue(frame.id, self._queue()))
        elif isinstance(frame, p.Tokenize):
            self._pool.submit(self._guard, frame.id, self._tokenize, frame)
        elif isinstance(frame, p.Detokenize):
            self._pool.submit(self._guard, frame.id, self._detokenize, frame)
        elif isinstance(frame, p.ApplyTemplate):
            self._pool.submit(self._guard, frame.id, self._apply_template, frame)

    def _guard(self, id: int, do: object, *args: object) -> None:
        """Runs a request's work on the pool: what it raises goes to the caller, never to the others."""
        self._prepare_since[threading.get_ident()] = time.monotonic()
        try:
            do(*args)  # type: ignore[operator]
        except MinervaError as e:
            self._fail(id, e)
        except Exception as e:
            log.exception("request %d failed", id)
            self._fail(id, EngineError(f"the request could not be prepared: {e}"))
        finally:
            del self._prepare_since[threading.get_ident()]

    def _check_prepare(self) -> None:
        oldest = min(list(self._prepare_since.values()), default=None)
        if oldest is not None and time.monotonic() - oldest > PREPARE_LIMIT_S:
            log.critical("a request has been prepared for %.0f s: ending", PREPARE_LIMIT_S)
            logging.shutdown()
            os._exit(1)

    def _fail(self, id: int, error: MinervaError) -> None:
        self._answers.pop(id, None)
        self._prepared(id)
        self._send(p.Failed.of(id, error))

    def _prepared(self, id: int) -> bool:
        """The request is past the pool. True when it was cancelled meanwhile."""
        with self._lock:
            self._preparing.discard(id)
            cancelled = id in self._cancelled
            self._cancelled.discard(id)
        return cancelled

    def _generate(self, frame: p.Generate, received: float) -> None:
        frontend = self._loaded.frontend
        prepared = frontend.prepare(frame.prompt, frame.sampling)
        sequence = frontend.sequence(
            frame.id,
            prepared,
            frame.sampling,
            self._outputs.put,
            namespace=frame.namespace,
            priority=frame.priority,
            deadline=received + frame.timeout_s if frame.timeout_s is not None else None,
        )
        self._answers[frame.id] = Answer(frame.id, prepared.parser())
        self._loaded.engine.submit(sequence)
        if self._prepared(frame.id):
            self._cancel(frame.id)

    def _cancel(self, id: int) -> None:
        with self._lock:
            if id in self._preparing:
                self._cancelled.add(id)
                return
        if self._answers.pop(id, None) is not None:
            self._loaded.engine.cancel(id)

    def _queue(self) -> list[p.QueueItem]:
        engine, now = self._loaded.engine, time.monotonic()
        items, position = [], 0
        for s in engine.queue():
            position = 0 if s.slot >= 0 else position + 1
            wait_s = engine.wait_s(position - 1) if position else 0.0
            age_s = now - s.arrived
            items.append(
                p.QueueItem(s.id, position, s.priority, age_s, wait_s, s.prompt_len, s.computed, s.cached, s.generated)
            )
        return items

    def _tokenize(self, frame: p.Tokenize) -> None:
        vocab = self._loaded.model.vocab
        tokens = vocab.tokenize(frame.text, add_special=frame.add_special, parse_special=frame.parse_special)
        pieces = [vocab.piece(token) for token in tokens] if frame.with_pieces else []
        self._send(p.Reply(frame.id, tokens, pieces))

    def _detokenize(self, frame: p.Detokenize) -> None:
        text = self._loaded.model.vocab.detokenize(frame.tokens).decode("utf-8", "replace")
        self._send(p.Reply(frame.id, text=text))

    def _apply_template(self, frame: p.ApplyTemplate) -> None:
        rendered = self._loaded.frontend.render(frame.prompt)
        self._send(p.Reply(frame.id, text=rendered.prompt.decode("utf-8", "replace")))

    def _write(self) -> None:
        """Everything one step gave goes out in one frame."""
        while True:
            outputs = [self._outputs.get()]
            while not self._outputs.empty():
                outputs.append(self._outputs.get())
            events: list[Event] = []
            for output in outputs:
                id = output.sequence.id
                answer = self._answers.get(id)
                if answer is None:
                    continue
                if output.finish or output.error:
                    self._answers.pop(id, None)
                try:
                    events += answer.events(output)
                except Exception as e:
                    log.exception("answer %d cannot be read", id)
                    self._cancel(id)
                    events.append(p.Failed.of(id, EngineError(f"the answer could not be read: {e}")))
            if events:
                self._send(p.Events(events))

    def _send(self, frame: p.Frame | p.Failed) -> None:
        data = p.encode(frame)
        try:
            with self._send_lock:
                self._sock.sendall(data)
        except OSError:
            os._exit(0)  # the gateway is gone, and nobody is left to serve

    def _receive(self) -> p.ToWorker | None:
        """None when the gateway is gone, in the middle of a frame or not."""
        try:
            header = self._stream.read(p.HEADER.size)
            if len(header) < p.HEADER.size:
                return None
            (size,) = p.HEADER.unpack(header)
            if size > p.MAX_FRAME:
                raise RequestError(f"a frame of {size} bytes")
            body = self._stream.read(size)
        except OSError:
            return None
        if len(body) < size:
            return None
        frame: p.ToWorker = p.to_worker.decode(body)
        return frame


def describe(loaded: Loaded) -> p.WorkerModel:
    model, context, sizes = loaded.model, loaded.context, loaded.sizes
    return p.WorkerModel(
        architecture=model.metadata("general.architecture") or "",
        description=model.description,
        n_ctx=loaded.engine.scheduler.n_ctx,
        n_ctx_train=model.n_ctx_train,
        n_slots=sizes.n_slots,
        n_cells=loaded.engine.scheduler.n_cells,
        n_vocab=len(model.vocab),
        n_params=model.n_params,
        size=model.size,
        device=loaded.device,
        gpu_layers=loaded.gpu_layers,
        threads=loaded.threads,
        kv_unified=context.kv_unified,
        template=loaded.frontend.template.source,
        notes=loaded.notes,
    )


def end_with_thread(lost: threading.ExceptHookArgs) -> None:
    """Without one of its threads a worker would answer pings and nothing else: it ends, and is replaced."""
    log.critical("thread %s is lost", lost.thread and lost.thread.name, exc_info=lost.exc_value)
    logging.shutdown()
    os._exit(1)


def main() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    threading.excepthook = end_with_thread
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    WorkerProcess(socket.socket(fileno=int(sys.argv[1]))).run()
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main()
