from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minerva.engine.sequence import Status
from minerva.errors import OverloadedError
from tests.engine.fakes import FakeCore


def test_a_prompt_is_computed_in_chunks_of_the_budget_and_then_decodes():
    core = FakeCore(batch=64)
    core.sequence(1, prompt=150, max_tokens=3)
    sizes = [[c.stop - c.start for c in core.step()] for _ in range(5)]
    assert sizes == [[64], [64], [22], [1], [1]]
    assert not core.scheduler.has_work


def test_a_decoding_sequence_gets_its_token_in_every_step_while_a_long_prompt_is_computed():
    core = FakeCore(batch=32, n_cells=4096, n_ctx=2048)
    talker = core.sequence(1, prompt=4, max_tokens=50)
    core.step()
    core.sequence(2, prompt=1000)
    for _ in range(20):
        before = talker.generated
        core.step()
        assert talker.generated == before + 1


def test_a_short_prompt_does_not_wait_behind_a_long_one():
    core = FakeCore(batch=32, n_cells=4096, n_ctx=2048)
    long = core.sequence(1, prompt=1000)
    core.step()
    short = core.sequence(2, prompt=16)
    core.step()
    assert short.generated == 1
    assert long.generated == 0


def test_the_oldest_prompt_always_advances_under_a_stream_of_short_ones():
    core = FakeCore(batch=32, n_cells=8192, n_ctx=2048, queue_size=1000)
    long = core.sequence(0, prompt=640, max_tokens=1)
    for id in range(1, 200):
        core.sequence(id, prompt=30, max_tokens=1)
    steps = 0
    while long.status is not Status.FINISHED:
        core.step()
        steps += 1
    assert steps <= 640 // 16


def test_requests_beyond_the_slots_wait_in_order_of_priority_then_arrival():
    core = FakeCore(n_slots=1)
    core.sequence(1, prompt=4)
    core.step()
    core.sequence(2, prompt=4)
    core.sequence(3, prompt=4, priority=-1)
    assert [s.id for s in core.scheduler.waiting] == [3, 2]


def test_a_full_queue_refuses_and_says_when_to_retry():
    core = FakeCore(n_slots=1, queue_size=2)
    for id in (1, 2):
        core.sequence(id, prompt=4)
    with pytest.raises(OverloadedError) as refused:
        core.sequence(3, prompt=4)
    assert refused.value.retry_after


def test_when_cells_run_out_the_youngest_gives_way_and_everyone_finishes_in_full():
    core = FakeCore(n_slots=4, n_cells=128, n_ctx=128)
    sequences = [core.sequence(i, prompt=20, max_tokens=60) for i in range(4)]
    core.run()
    assert core.scheduler.preemptions > 0
    assert [s.generated for s in sequences] == [60] * 4


def test_a_preempted_sequence_keeps_its_tokens():
    core = FakeCore()
    sequence = core.sequence(1, prompt=10, max_tokens=5)
    core.step()
    core.step()
    kept = list(sequence.tokens)
    core.scheduler.preempt(sequence)
    assert sequence.tokens == kept
    assert core.memory.tokens(0) == []
    core.run()
    assert sequence.generated == 5


def test_release_frees_the_slot_and_the_cells_of_a_running_sequence():
    core = FakeCore(n_slots=1)
    first = core.sequence(1, prompt=10)
    second = core.sequence(2, prompt=10)
    core.step()
    core.scheduler.release(first)
    assert core.memory.tokens(0) == []
    core.step()
    assert second.status is Status.RUNNING


def test_release_of_a_waiting_sequence_takes_it_out_of_the_queue():
    core = FakeCore(n_slots=1)
    core.sequence(1, prompt=10)
    second = core.sequence(2, prompt=10)
    core.step()
    core.scheduler.release(second)
    assert core.scheduler.waiting == []


def test_a_passed_deadline_is_reported_wherever_the_sequence_is():
    core = FakeCore(n_slots=1)
    core.sequence(1, prompt=10, deadline=5.0, max_tokens=100)
    core.sequence(2, prompt=10, deadline=4.0)
    core.step()
    assert [s.id for s in core.scheduler.expired(4.5)] == [2]
    assert {s.id for s in core.scheduler.expired(5.0)} == {1, 2}


requests = st.lists(
    st.tuples(st.integers(1, 120), st.integers(1, 60), st.integers(-1, 1), st.integers(0, 20)), min_size=1, max_size=25
)


@given(requests, st.integers(1, 6), st.integers(1, 80), st.integers(192, 600))
def test_every_request_finishes_whatever_arrives_when(arrivals, n_slots, batch, n_cells):
    """Cells and slots are conserved in every step (the fake core asserts it), and nobody starves."""
    core = FakeCore(n_slots=n_slots, batch=max(batch, n_slots), n_cells=n_cells, n_ctx=n_cells)
    arrivals = sorted(arrivals, key=lambda a: a[3])
    sequences = []
    while arrivals or core.scheduler.has_work:
        while arrivals and arrivals[0][3] <= core.now:
            prompt, max_tokens, priority, _ = arrivals.pop(0)
            sequences.append(core.sequence(len(sequences), prompt, max_tokens, priority=priority))
        core.step()
        assert core.now < 20_000
    assert [s.generated for s in sequences] == [s.max_tokens for s in sequences]
    assert core.memory.used == 0


def test_a_full_context_that_shifts_goes_on_without_its_middle():
    core = FakeCore(sharing=True, n_cells=256, n_ctx=64)
    sequence = core.sequence(1, prompt=40, max_tokens=500)
    start = list(sequence.tokens[:16])
    while sequence.generated < 200:
        core.step()
        if len(sequence.tokens) >= 64:
            core.scheduler.shift(sequence)
            core.verify()
    assert sequence.tokens[:16] == start
    assert sequence.dropped > 0
    assert len(sequence.tokens) <= 64
