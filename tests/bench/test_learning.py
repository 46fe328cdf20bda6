"""The bars of `make bench-quota --unknown`, on its smallest rate."""

from __future__ import annotations

import pytest

from benchmarks import changing, kindness, sharing, unknown
from benchmarks.arms import Told
from benchmarks.unknown import LEARNED, PACED, Arm
from benchmarks.workload import MINUTE, MODELS, Case, Model, Setting, Shows, settings_of

MET = (PACED[0], PACED[1], LEARNED[0])  # a reset in the headers changes little
CASES = [
    pytest.param(setting, model, arm, id=f"{model.name}: {setting}: {arm}")
    for setting in settings_of([60])
    for model in setting.untold
    for arm in MET
]


@pytest.mark.parametrize(("setting", "model", "arm"), CASES)
def test_an_unknown_model_is_used_up_and_refuses_while_it_is_learned_if_at_all(
    setting: Setting, model: Model, arm: Arm
) -> None:
    row = unknown.measure(setting, model, [arm], draws=1)[arm]

    assert row.clears(arm), row


@pytest.mark.parametrize("arm", MET, ids=str)
@pytest.mark.parametrize("model", kindness.MODELS_MET, ids=lambda model: model.name)
def test_ten_calls_after_a_rest_go_together_where_the_provider_allows_it(
    arm: Arm, model: Model
) -> None:
    row = kindness.measure(arm, model, [0, 35])

    assert row.clears(arm, model), row


@pytest.mark.parametrize("arm", MET[1:], ids=str)
@pytest.mark.parametrize("name", sharing.BARRED)
def test_two_programs_share_an_account_by_its_headers_alone(
    arm: Arm, name: str
) -> None:
    model = next(model for model in MODELS if model.name == name)
    row = sharing.measure(arm, model, sharing.WITHIN_S, minutes=8)

    assert row.clears, row


@pytest.mark.parametrize("told", changing.TOLD)
@pytest.mark.parametrize("model", changing.MODELS_MET, ids=lambda model: model.name)
def test_a_limit_that_changes_is_followed_within_a_window(
    model: Model, told: Told
) -> None:
    row = changing.measure(told, Shows.REMAINING, model, minutes=14)

    assert [] == row.missed(), row


def test_a_limit_that_changes_is_what_the_provider_holds() -> None:
    """So the shares above are of the limit in force, not of the first one."""
    case = Case(model=MODELS[0], rpm=300, changes=((5 * MINUTE, 150),))
    enforcer = case.enforcer(0)
    before = enforcer.standing(5 * MINUTE - 1)
    after = enforcer.standing(5 * MINUTE)

    assert [300] == [one.limit for one in before]
    assert [150] == [one.limit for one in after]
    assert 150 * [True] + [False] == [
        enforcer.wait_us({"requests": 1}, 5 * MINUTE) == 0
        and bool(enforcer.admit({"requests": 1}, 5 * MINUTE))
        for _ in range(151)
    ]
