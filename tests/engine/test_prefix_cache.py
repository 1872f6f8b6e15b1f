from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from minerva.engine.radix import Node, common_prefix
from tests.engine.fakes import FakeCore

SYSTEM = list(range(100))


def test_a_second_request_computes_only_what_it_does_not_share():
    core = FakeCore(sharing=True)
    core.sequence(1, [*SYSTEM, 500])
    core.run()
    second = core.sequence(2, [*SYSTEM, 600, 601])
    before = core.computed
    core.run()
    assert second.cached == 100
    assert core.computed - before == 2 + second.generated - 1


def test_the_same_prompt_again_computes_one_token_for_its_logits():
    core = FakeCore(sharing=True)
    core.sequence(1, SYSTEM)
    core.run()
    again = core.sequence(2, SYSTEM)
    core.run()
    assert again.cached == 99


def test_concurrent_requests_with_one_system_prompt_compute_it_once():
    core = FakeCore(sharing=True, n_slots=8, n_cells=4096, batch=32)
    sequences = [core.sequence(i, [*SYSTEM, 500 + i], max_tokens=1) for i in range(8)]
    core.run()
    assert core.computed == len(SYSTEM) + 8
    assert [s.cached for s in sequences] == [0] + [100] * 7


def test_a_request_that_waits_for_another_goes_on_when_that_one_is_cancelled():
    core = FakeCore(sharing=True, batch=16)
    first = core.sequence(1, [*SYSTEM, 500])
    second = core.sequence(2, [*SYSTEM, 600])
    core.step()
    core.step()
    core.scheduler.release(first)
    core.run()
    assert second.generated == 4
    assert second.cached == 32


def test_an_answer_is_cached_with_its_prompt_for_the_next_turn():
    core = FakeCore(sharing=True)
    first = core.sequence(1, SYSTEM, max_tokens=10)
    core.run()
    turn = core.sequence(2, [*first.tokens, 900, 901])
    core.run()
    assert turn.cached == 109, "all but the last token, which was never computed"


def test_namespaces_do_not_share():
    core = FakeCore(sharing=True)
    core.sequence(1, SYSTEM, namespace="a")
    core.run()
    other = core.sequence(2, SYSTEM, namespace="b")
    core.run()
    assert other.cached == 0


def test_the_least_recently_used_prefix_is_evicted_first():
    core = FakeCore(sharing=True, n_cells=512)
    old, new = [[base + i for i in range(180)] for base in (10_000, 20_000)]
    for id, prompt in enumerate((old, new)):
        core.sequence(id, prompt, max_tokens=1)
        core.run()
    core.sequence(2, new, max_tokens=1)
    core.run()
    core.sequence(3, [30_000 + i for i in range(300)], max_tokens=1)
    core.run()
    assert core.cache.peek(core.sequence(4, new)) == 179
    assert core.cache.peek(core.sequence(5, old)) < 100


def test_what_a_running_sequence_shares_is_never_evicted():
    core = FakeCore(sharing=True, n_cells=256, n_ctx=256)
    core.sequence(1, SYSTEM, max_tokens=1)
    core.run()
    user = core.sequence(2, [*SYSTEM, 500], max_tokens=50)
    core.step()
    core.sequence(3, 140, max_tokens=1)
    core.run()
    assert user.generated == 50


def test_an_evicted_prefix_comes_back_from_ram():
    core = FakeCore(sharing=True, ram=1 << 20, n_cells=256, n_ctx=256)
    core.sequence(1, SYSTEM, max_tokens=1)
    core.run()
    core.sequence(2, 250, max_tokens=1)
    core.run()
    before = core.computed
    back = core.sequence(3, [*SYSTEM, 500], max_tokens=1)
    core.run()
    assert back.cached == 100
    assert core.computed - before == 1


def test_ram_keeps_to_its_limit():
    core = FakeCore(sharing=True, ram=1000, n_cells=256, n_ctx=256)
    for id in range(10):
        core.sequence(id, 200, max_tokens=1)
        core.run()
    assert core.cache.ram.bytes <= 1000


def test_when_cells_run_out_everyone_finishes_and_preempted_work_is_not_all_lost():
    core = FakeCore(sharing=True, n_slots=4, n_cells=256, n_ctx=256)
    sequences = [core.sequence(i, 40, max_tokens=80) for i in range(4)]
    core.run()
    assert core.scheduler.preemptions > 0
    assert [s.generated for s in sequences] == [80] * 4


def test_what_a_preempted_sequence_finds_of_its_own_work_does_not_count_as_cached():
    core = FakeCore(sharing=True)
    sequence = core.sequence(1, 40, max_tokens=20)
    for _ in range(10):
        core.step()
    core.scheduler.preempt(sequence)
    core.run()
    assert sequence.generated == 20
    assert sequence.cached == 0


prompts = st.lists(
    st.tuples(
        st.lists(st.integers(0, 2), min_size=1, max_size=40),  # few tokens, so that prefixes meet
        st.integers(1, 12),
        st.integers(0, 30),
        st.booleans(),
        st.sampled_from(["", "tenant"]),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=200)
@given(prompts, st.integers(1, 5), st.integers(5, 40), st.integers(64, 200), st.sampled_from([0, 300]))
def test_cells_are_conserved_and_hold_what_they_say_whatever_comes_and_goes(arrivals, n_slots, batch, n_cells, ram):
    """The fake memory knows each cell's token: after every step each running sequence holds exactly its own."""
    core = FakeCore(sharing=True, ram=ram, n_slots=n_slots, batch=batch, n_cells=n_cells, n_ctx=n_cells, queue_size=99)
    random.seed(0)
    arrivals = sorted(arrivals, key=lambda a: a[2])
    sequences = []
    while arrivals or core.scheduler.has_work:
        while arrivals and arrivals[0][2] <= core.now:
            tokens, max_tokens, _, cancel, namespace = arrivals.pop(0)
            sequence = core.sequence(len(sequences), tokens, max_tokens, namespace=namespace)
            sequences.append((sequence, cancel))
        core.step()
        running = [s for s, cancel in sequences if cancel and s in core.scheduler.running]
        if running and random.random() < 0.3:
            core.scheduler.release(running[0])
            core.verify()
        assert core.now < 5000
    for sequence, cancel in sequences:
        assert cancel or sequence.generated == sequence.max_tokens
    core.cache.clear()
    assert core.memory.used == 0
    assert core.cache.cells == 0


tokens = st.lists(st.integers(0, 3), max_size=30)


@given(st.lists(tokens.filter(bool), max_size=20), tokens.filter(bool))
def test_the_tree_finds_the_longest_prefix_that_a_naive_search_finds(stored, wanted):
    root = Node(None, [])
    for path in stored:
        node, n = root.descend(path, len(path))
        if n < node.depth:
            node = node.split(n)
        if n < len(path):
            node.add(path[n:])
    _, n = root.descend(wanted, len(wanted))
    naive = max((_naive(path, wanted) for path in stored), default=0)
    assert n == naive
    for node in root.walk():
        assert node.depth == len(node.path())


@given(tokens, tokens)
def test_common_prefix_is_what_counting_gives(a, b):
    assert common_prefix(a, b, 0, len(b)) == _naive(a, b)


def _naive(a, b):
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n
