"""The error tree: one root, facts as attributes, pickled whole."""

from __future__ import annotations

import pickle

import pytest

from ratekeeper import errors
from ratekeeper.errors import RatekeeperError

ALL = [
    errors.AnswerTooLarge("no", status=200, attempts=1, provider="openai"),
    errors.AuthenticationError("no", status=401, provider="openai"),
    errors.BillingStopped("no", status=402, body="out of credit", attempts=1),
    errors.BudgetExceeded("spent", retry_after_s=5.0, limit="$5/day"),
    errors.ConfigError("wrong"),
    errors.LimitExceeded("no", retry_after_s=1.5, limit="5 requests/minute"),
    errors.NeverPossible("too large", limit="5 requests/minute"),
    errors.PriceUnknown("no price of 'm' is known"),
    errors.ProviderError("no", status=500, body="x", attempts=3),
    errors.ProviderOverloaded("no", retry_after_s=2.0),
    errors.ProviderThrottled("no", retry_after_s=None, limit="rpm", attempts=2),
    errors.ProviderUnreachable("no", reason="dns", attempts=2),
    errors.RatekeeperError("no"),
    errors.StoreUnavailable("no"),
]


@pytest.mark.parametrize("error", ALL, ids=[type(error).__name__ for error in ALL])
def test_an_error_pickles_with_its_facts(error: RatekeeperError) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert type(error) is type(copy)
    assert str(error) == str(copy)
    assert vars(error) == vars(copy)


def test_every_error_is_tested_and_has_the_one_root() -> None:
    kinds = {getattr(errors, name) for name in errors.__all__}

    assert kinds == {type(error) for error in ALL}
    assert all(issubclass(kind, RatekeeperError) for kind in kinds)
    assert sorted(errors.__all__) == errors.__all__


def test_a_config_error_is_a_value_error_and_a_spent_budget_an_exceeded_limit() -> None:
    assert issubclass(errors.ConfigError, ValueError)
    assert issubclass(errors.BudgetExceeded, errors.LimitExceeded)
    assert issubclass(errors.ProviderThrottled, errors.ProviderError)
