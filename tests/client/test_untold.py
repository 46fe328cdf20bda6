"""What someone is told who gives no limits where none can be learned."""

from __future__ import annotations

import pytest

from ratekeeper import Client, ConfigError, http_client


@pytest.mark.parametrize(
    ("provider", "what"),
    [
        ("gemini", 'or tier="free" or tier="paid" or "learned from refusals"'),
        ("together", '"500 rpm", "120k tpm", or "learned from refusals"'),
    ],
)
def test_a_provider_that_shows_no_limits_names_what_may_be_said(
    provider: str, what: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        http_client(provider)

    assert str(caught.value).endswith(what)


def test_a_tier_that_the_message_names_is_one_to_type() -> None:
    with http_client("gemini", tier="free") as client:
        assert not client.is_closed


def test_an_empty_list_of_limits_says_what_to_write() -> None:
    with pytest.raises(ConfigError, match=r'such as limits=\["500 rpm", "120k tpm"\]'):
        Client("openai", api_key="sk-" + "a1b2c3d4" * 6, limits=[])
