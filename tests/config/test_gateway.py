"""The gateway's part of a config file: what loads, and what is refused by its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.config.checks import check
from ratekeeper.config.default import from_environment
from ratekeeper.config.findings import Findings
from ratekeeper.config.load import limits_of, load
from ratekeeper.config.model import Account, Config
from ratekeeper.config.tiers import presets_by_model
from ratekeeper.errors import ConfigError

DIGEST = "0f" * 32
SECRET = "rk-canary-0123456789abcdefghijklmnop"

PRODUCT = f"""\
listen: 127.0.0.1:8080
store: sqlite:///ratekeeper.db
providers:
  openai:
    accounts:
      - {{api_key: "env:OPENAI_API_KEY", limits: [500 rpm, 120k tpm]}}
      - {{api_key: "env:OPENAI_API_KEY_2", tier: 1}}
    models: {{"gpt-4o*": [300 rpm, 60k tpm]}}
  anthropic:
    accounts: [{{api_key: "env:ANTHROPIC_API_KEY", limits: learned}}]
fallbacks: {{gpt-4o: [openai/gpt-4o, holysheep/gpt-4o]}}
teams:
  search: {{limits: [$50/day], priority: interactive, weight: 3}}
client_keys:
  - {{name: search-web, team: search, hash: "{DIGEST}", allow_models: ["gpt-4o*"], limits: [60 rpm, 10k tpm, 10 concurrent], max_wait: 20s}}
"""  # noqa: E501 - as the product has it

OPENAI = "providers:\n  openai:\n    accounts: [{limits: [5 rpm]}]\n"


def _key(inside: str) -> str:
    return f'client_keys:\n  - {{name: a, hash: "{DIGEST}", {inside}}}\n'


def _account(inside: str, provider: str = "openai") -> str:
    return f"providers:\n  {provider}:\n    accounts:\n      - {{{inside}}}\n"


MALFORMED = [
    (
        "listen: 8080",
        "1: listen: expected a host and a port such as 127.0.0.1:8080, not 8080",
    ),
    ("listen: localhost", "1: listen: 'localhost': expected a host and a port"),
    ("listen: '127.0.0.1:65536'", "expected a host and a port from 0 to 65535"),
    ("listen: '[::g]:80'", "expected a host and a port"),
    ("listen: '[1:2]:80'", "expected a host and a port"),
    ("store: redis://host", "1: store: store 'redis': expected sqlite:///path"),
    ("auth: non", "expected client_keys or none (did you mean 'none'?)"),
    ("auth: []", "1: auth: expected client_keys or none, not"),
    ("unowned: hiden", "expected hidden or shown (did you mean 'hidden'?)"),
    ("max_body: 32MeB", "1: max_body: '32MeB': 'MeB': expected B, kB, MB"),
    ("max_wait: 20x", "1: max_wait: '20x': 'x': expected ms, s, m, h or days"),
    ("drain: 10", "1: drain: expected a duration such as 20s, not 10"),
    ("notice: 10", "1: notice: expected a duration such as 20s, not 10"),
    ("notice: 10x", "1: notice: '10x': 'x': expected ms, s, m, h or days"),
    ("max_held: 1MiB", "1: max_held: max_body is more than max_held"),
    ("max_body: 1GiB", "1: max_body: max_body is more than max_held"),
    (_account("limits: learned", "deepseek"), "say 'learned from refusals'"),
    (_account("limits: leaned"), "limit 'leaned': expected 'learned' once"),
    (_account("limits: [learned, learned]"), "expected 'learned' once"),
    (_account("limits: 500 rpn"), "limits[0]: limit '500 rpn'"),
    (
        _account("limits: [{limit: learned, shadow: true}]"),
        "limits[0]: 'learned' cannot be only watched",
    ),
    (_account("limits: [{limit: 5 rpm, shadw: true}]"), "did you mean 'shadow'?"),
    (_account("limits: [{shadow: true}]"), "limits[0]: expected 'limit' here"),
    (
        _account("limits: [5 rpm]}\n      - {limits: [6 rpm], name: '1'"),
        "5: providers.openai.accounts[1]: accounts[0] has the same name",
    ),
    (
        _account(
            "api_key: 'env:K', limits: [5 rpm]}\n"
            "      - {api_key: 'env:K', limits: [6 rpm]"
        ),
        "5: providers.openai.accounts[1]: accounts[0] has the same name",
    ),
    (_account("name: a/b, limits: [5 rpm]"), "accounts[0].name: expected a name of"),
    (_account(f"api_key: {SECRET}, limits: [5 rpm]"), "expected env:NAME"),
    (_account(f"api_key: 'env:{SECRET}', limits: [5 rpm]"), "expected env:NAME"),
    (
        _account("base_url: 'http://u:p@x', limits: [5 rpm]"),
        "4: providers.openai.accounts[0].base_url: the",
    ),
    (
        _account("limits: [5 rpm]", "azure"),
        "2: providers.azure: azure has an address for",
    ),
    (
        "providers:\n  'a/b':\n    base_url: http://x/v1",
        "2: providers.a/b: expected a name",
    ),
    (
        OPENAI + "    models: {'gpt-4o*': learned}",
        "models.gpt-4o*[0]: 'learned' is for accounts",
    ),
    (OPENAI + "    models: {'gpt-4o*': [learned]}", "'learned' is for accounts"),
    (OPENAI + "    models: {'gpt-4o*': [5 rpn]}", "models.gpt-4o*[0]: limit '5 rpn'"),
    (
        OPENAI + "    models: {'gpt-4o*': []}",
        "expected limits such as [60 rpm, 10k tpm], not none",
    ),
    (
        OPENAI + f"    proxy: 'ftp://u:{SECRET}@p:1'",
        "4: providers.openai.proxy: the proxy b",
    ),
    (OPENAI + f"    proxy: 'http://u:{SECRET}@'", "the proxy names no host"),
    (OPENAI + f"    proxy: 'http://u:{SECRET}@p:x'", "the proxy's URL is malformed"),
    (OPENAI + f"    proxy: 'http://u:{SECRET}@p:1/x'", "the proxy has a path"),
    (OPENAI + f"    proxy: 'http://u:{SECRET} @p:1'", "characters no URL has"),
    (
        OPENAI + "fallbacks: {m: [gpt-4o]}",
        "4: fallbacks.m[0]: 'gpt-4o': expected provider/",
    ),
    (
        OPENAI + "fallbacks: {m: [opnai/m]}",
        "no provider is called 'opnai' (did you mean 'op",
    ),
    (OPENAI + "fallbacks: {m: [azure/m]}", "4: fallbacks.m[0]: azure has an address"),
    (
        OPENAI + "fallbacks: {m: [7]}",
        "4: fallbacks.m[0]: expected provider/model, such as",
    ),
    (
        "teams:\n  a: {weight: 0}",
        "2: teams.a.weight: 0: expected a weight from 1 to 16",
    ),
    ("teams:\n  a: {weight: 17}", "expected a weight from 1 to 16"),
    (
        "teams:\n  a: {weight: 1.5}",
        "2: teams.a.weight: expected a whole number, not 1.5",
    ),
    (
        "teams:\n  a: {priority: bach}",
        "expected interactive, normal or batch (did you mean",
    ),
    (
        "teams:\n  a: {max_wait: long}",
        "2: teams.a.max_wait: 'long': expected a duration",
    ),
    ("teams:\n  a: {limits: [learned]}", "2: teams.a.limits[0]: 'learned' is for"),
    ("teams:\n  a: {limits: [$5/day, $6/day]}", "rule the same thing"),
    ("teams:\n  a: {limits: [5 eur/day]}", "2: teams.a.limits[0]: no rate of eur"),
    (
        OPENAI + "teams: {a: {limits: [5 jpy/day]}}\nrates: {x/jpy: 150}",
        "no rate of jpy",
    ),
    ("teams:\n  'a b': {}", "2: teams.a b: expected a name of letters"),
    ("client_keys: {}", "1: client_keys: expected a list, not names with values"),
    ("client_keys:\n  - {name: a}", "2: client_keys[0]: expected 'hash' here"),
    (
        f"client_keys:\n  - {{name: a, hash: {SECRET}}}",
        "expected a key's hash of 64 hexadec",
    ),
    (
        f"client_keys:\n  - {{name: a, hash: {DIGEST[1:]}}}",
        "expected a key's hash of 64",
    ),
    (_key("key: x"), "2: client_keys[0].key: not a known name"),
    (
        _key("team: serch") + "teams: {search: {}}",
        "no team 'serch' (did you mean 'search'?)",
    ),
    (_key("allow_models: ['']"), "2: client_keys[0].allow_models[0]: expected a model"),
    (_key("limits: [learned]"), "2: client_keys[0].limits[0]: 'learned' is for"),
    (_key("max_wait: 20sec onds"), "2: client_keys[0].max_wait"),
    (_key("expires: 2026-02-30"), "2: client_keys[0].expires: '2026-02-30': day"),
    (_key("expires: never"), "'never': expected a date such as 2026-12-31"),
    (_key(f"expires: {SECRET}"), "expected a date"),
    (
        _key("") + f'  - {{name: a, hash: "{"1e" * 32}"}}',
        "3: client_keys[1].name: client_keys[",
    ),
    (
        _key("") + f'  - {{name: b, hash: "{DIGEST}"}}',
        "3: client_keys[1].hash: client_keys[",
    ),
]


@pytest.mark.parametrize(("text", "says"), MALFORMED)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)

    assert says in str(caught.value)
    assert "canary" not in str(caught.value)


def test_the_product_s_own_example_loads(tmp_path: Path) -> None:
    path = tmp_path / "ratekeeper.yaml"
    path.write_text(PRODUCT)
    config = load(path)

    assert ["openai", "anthropic"] == [*config.providers]
    assert [DIGEST] == [key.hash for key in config.client_keys]
    assert 3 == config.teams["search"].weight


@pytest.mark.parametrize(
    "text",
    [
        "listen: '[::1]:8080'",
        "listen: 0.0.0.0:0",
        "auth: none",
        "notice: 0s\ndrain: 1 day\nmax_body: 1 GiB\nmax_held: 2GiB",
        OPENAI + "    proxy: 'http://user:pass@proxy.example.com:3128'",
        OPENAI + "    proxy: 'https://[::1]:3128'",
        _account("limits: [learned, 20 concurrent]"),
        _account("limits: learned from refusals", "deepseek"),
        _account("limits: [{limit: 5 rpm, shadow: true}]"),
        _account(
            "base_url: 'https://me.openai.azure.com/openai/v1', limits: [5 rpm]",
            "azure",
        ),
        _account("base_url: 'http://127.0.0.1:1/v1', limits: [5 rpm]", "ours"),
        "teams: {a: {limits: [5 eur/day]}}\nrates: {eur: 0.92}",
        OPENAI + "teams: {a: {limits: [5 jpy/day]}}\nrates: {openai/jpy: 150}",
        _key("expires: 2026-12-31"),
        _key("expires: '2026-12-31T18:00:00+08:00'"),
        _key("expires: 2026-12-31 18:00:00"),
    ],
)
def test_what_the_language_allows_loads(tmp_path: Path, text: str) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(text)

    assert load(path).listen


def test_a_date_of_toml_is_the_text_it_is(tmp_path: Path) -> None:
    path = tmp_path / "good.toml"
    path.write_text(
        f'[[client_keys]]\nname = "a"\nhash = "{DIGEST}"\nexpires = 2026-12-31\n'
    )

    assert ["2026-12-31"] == [key.expires for key in load(path).client_keys]


def test_mistakes_in_every_part_are_all_told_in_the_order_of_the_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "listen: here\n"
        "providers:\n"
        "  openai:\n"
        "    accounts: [{limits: [7, 5 rpn]}]\n"
        "teams:\n"
        "  a: {weight: x, prioritty: batch}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(path)
    lines = [int(line.split(":")[1]) for line in str(caught.value).splitlines()]

    assert [1, 4, 4, 6, 6] == lines


def test_mistakes_of_one_part_hide_each_other_no_more_than_those_of_several(
    tmp_path: Path,
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "providers:\n"
        "  opnai:\n"
        "    accounts: [{limits: [5 rpn], name: a/b, api_key: 7}]\n"
        "  local:\n"
        "    base_url: 7\n"
        "    accounts: [{limits: [5 rpn], tier: []}]\n"
        "teams:\n"
        "  search: {limits: [$50/dya, 7], priority: hihg, weight: 0}\n"
        "client_keys:\n"
        "  - {limits: 5 rpn, team: serch, shadow: 1, hash: 7}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(path)
    found = [line.split(": ")[0][9:] for line in str(caught.value).splitlines()]
    names = [line.split(": ")[1] for line in str(caught.value).splitlines()]

    assert [2, 3, 3, 3, 5, 6, 6, 8, 8, 8, 8, 10, 10, 10, 10, 10] == [*map(int, found)]
    assert {
        "limits[0]", "limits[1]", "weight", "priority", "shadow", "team", "hash"
    } <= {name.rpartition(".")[2] for name in names}  # fmt: skip
    assert "'hihg': expected interactive, normal or batch" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        _account("limits: 60 rpm"),
        _account("limits: {limit: 60 rpm, shadow: true}"),
        OPENAI + "    models: {'gpt-4o*': 60 rpm}",
        "teams: {a: {limits: 60 rpm}}",
        "teams: {a: {limits: {limit: 60 rpm, shadow: true}}}",
        _key("limits: 60 rpm"),
    ],
)
def test_one_limit_needs_no_list(tmp_path: Path, text: str) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(text)
    said = str(msgspec.to_builtins(load(path)))

    assert "'limits': '60 rpm'" in said or "['60 rpm']" in said or "[{'limit'" in said


def test_a_tier_of_some_models_is_learned_beside_their_limits() -> None:
    account = Account(api_key="env:K", tier=1)
    models = [one.models[0] for one in presets_by_model("openai", account)]

    assert ("learned",) == limits_of("openai", account)
    assert ["gpt-5.4", "text-embedding-3-small"] == models
    assert () == presets_by_model("gemini", Account(tier="paid"))
    assert () == presets_by_model("openai", Account(tier=1, model="gpt-5.4"))


def test_keys_in_the_environment_are_accounts_that_learn() -> None:
    config = from_environment(
        {"OPENAI_API_KEY": "x", "DEEPSEEK_API_KEY": "y", "Z": "z"}
    )

    assert config is not None
    assert {
        "openai": ("env:OPENAI_API_KEY", "learned"),
        "deepseek": ("env:DEEPSEEK_API_KEY", "learned from refusals"),
    } == {
        name: (one.accounts[0].api_key, one.accounts[0].limits)
        for name, one in config.providers.items()
    }


@pytest.mark.parametrize(
    "environ", [{}, {"OPENAI_API_KEY": " "}, {"AZURE_OPENAI_API_KEY": "x"}]
)
def test_without_a_usable_key_there_is_no_config(environ: dict[str, str]) -> None:
    assert from_environment(environ) is None


WORDS = st.sampled_from(
    [
        "",
        "learned",
        "500 rpm",
        "$5/day",
        "5 eur/day",
        "20s",
        "openai",
        "azure/m",
        "x://y",
    ]
) | st.text(max_size=12)
ODD: st.SearchStrategy[Any] = (
    WORDS
    | st.integers()
    | st.booleans()
    | st.none()
    | st.floats()
    | st.just([])
    | st.just({"limit": 7})
)


def _said(kind: Any) -> st.SearchStrategy[Any]:
    """Draw what a file may say in the place of a kind: mostly right, at times odd."""
    origin, inner = get_origin(kind), get_args(kind)
    drawn: st.SearchStrategy[Any] = WORDS
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = {one.name: _said(one.type) for one in msgspec.structs.fields(kind)}
        drawn = st.fixed_dictionaries({}, optional=fields)
    elif origin is list:
        drawn = st.lists(_said(inner[0]), max_size=3)
    elif origin is dict:
        drawn = st.dictionaries(WORDS, _said(inner[1]), max_size=3)
    elif inner and origin is not Literal:
        drawn = st.one_of(*(_said(one) for one in inner))
    return st.integers(0, 19).flatmap(lambda dice: ODD if dice == 0 else drawn)


@given(_said(Config))
def test_any_data_fits_or_has_mistakes(data: Any) -> None:
    findings = Findings({})
    check(data, findings)
    try:
        fits = msgspec.convert(data, Config) is not None
    except msgspec.ValidationError:
        fits = False

    assert fits or findings.mistakes()


def test_a_name_that_only_begins_like_a_key_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("skeleton-of-a-name: 1\nsk-canary-0123456789: 1\n")
    with pytest.raises(ConfigError) as caught:
        load(path)

    assert "skeleton-of-a-name: not a known name" in str(caught.value)
    assert "2: [key]: not a known name" in str(caught.value)
