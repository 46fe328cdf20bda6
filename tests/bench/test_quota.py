"""The bars of `make bench-quota`, on its smallest rate."""

from __future__ import annotations

import pytest

from benchmarks.quota import RATES, bar_of, measure
from benchmarks.workload import MODELS, TPM, Model, Setting, settings_of

CASES = [
    pytest.param(setting, model, id=f"{model.name}: {setting}")
    for setting in settings_of(RATES[:1])
    for model in setting.models
]


@pytest.mark.parametrize(("setting", "model"), CASES)
def test_a_known_model_is_used_up_and_never_refuses(
    setting: Setting, model: Model
) -> None:
    row = measure(setting, model, "known")

    assert (0, 0) == (row.early, row.late)
    assert bar_of(setting, model) <= row.share


def test_the_bare_sdk_is_refused_by_the_same_provider() -> None:
    """So the zeros above are not the bench's own."""
    row = measure(Setting(rpm=60), MODELS[0], "bare")

    assert 1_000 < row.refusals
    assert 0 < row.vain


def test_the_oracle_is_no_less_than_the_quota() -> None:
    """A share of an oracle that idles would say nothing."""
    row = measure(Setting(rpm=60, tpm=TPM), MODELS[0], "bare")

    assert row.share == pytest.approx(1, abs=0.02)
