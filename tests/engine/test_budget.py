from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minerva.engine.budget import MIN_CHUNK, StepBudget, share


def test_nobody_decoding_opens_the_whole_batch():
    budget = StepBudget(512, target_s=0.1)
    budget.observe(0, 100, 0, seconds=10.0)
    assert budget.prompt_tokens(0) == 512


def test_beside_decodes_the_prompt_gets_what_the_target_leaves():
    budget = StepBudget(512, target_s=0.2)
    budget.observe(4, 0, 0, seconds=0.1)
    budget.observe(4, 100, 0, seconds=0.3)
    assert budget.prompt_tokens(4) == 50


def test_a_machine_that_cannot_keep_the_target_still_advances_the_prompt():
    budget = StepBudget(512, target_s=0.01)
    budget.observe(4, 0, 0, seconds=1.0)
    budget.observe(4, 100, 0, seconds=2.0)
    assert budget.prompt_tokens(4) == MIN_CHUNK


def test_a_batch_full_of_decodes_leaves_no_room():
    assert StepBudget(4, target_s=1.0).prompt_tokens(4) == 0


@given(st.integers(0, 2000), st.lists(st.integers(1, 1000), max_size=20))
def test_shares_never_exceed_the_budget_nor_the_wants_and_waste_nothing(budget, wants):
    given = share(budget, wants)
    assert sum(given) == min(budget, sum(wants))
    assert all(0 <= g <= w for g, w in zip(given, wants, strict=True))


@given(st.integers(2, 2000), st.lists(st.integers(1, 1000), min_size=1, max_size=20))
def test_the_oldest_is_sure_of_half(budget, wants):
    assert share(budget, wants)[0] >= min(wants[0], budget // 2)


def test_what_is_left_goes_to_the_shortest_first():
    assert share(100, [500, 200, 30]) == [50, 20, 30]


def test_guesses_are_worth_more_rights_the_fuller_the_batch():
    budget = StepBudget(64, target_s=1.0)
    budget.observe(1, 0, 0, seconds=0.018)
    budget.observe(8, 0, 0, seconds=0.070)
    budget.observe(1, 0, 10, seconds=0.098)
    assert 0.4 < budget.worth(1, 0.0) < 0.5
    assert budget.worth(8, 0.0) > 0.9


def test_a_step_is_judged_by_the_nearest_number_of_sequences_that_was_seen():
    budget = StepBudget(64, target_s=1.0)
    budget.observe(2, 0, 0, seconds=0.02)
    budget.observe(16, 0, 0, seconds=0.2)
    assert budget.decode_s(3) == 0.02
    assert budget.decode_s(12) == 0.2
