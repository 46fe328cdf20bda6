"""A config file gives accounts, or every mistake in it with its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.config.load import limits_of, load
from ratekeeper.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
providers:
  openai:
    accounts:
      - {api_key: "env:OPENAI_API_KEY", limits: [500 rpm, 120k tpm]}
      - {api_key: "env:OPENAI_API_KEY_2", tier: free, model: gpt-4}
  local:
    base_url: http://127.0.0.1:8000/v1
    accounts: [{limits: [20 concurrent]}]
"""

GOOD_TOML = """\
[[providers.openai.accounts]]
api_key = "env:OPENAI_API_KEY"
limits = ["500 rpm", "120k tpm"]

[[providers.openai.accounts]]
api_key = "env:OPENAI_API_KEY_2"
tier = "free"
model = "gpt-4"

[providers.local]
base_url = "http://127.0.0.1:8000/v1"
accounts = [{limits = ["20 concurrent"]}]
"""


def _account(inside: str) -> str:
    return f"providers:\n  openai:\n    accounts:\n      - {{{inside}}}\n"


# The file, and what its refusal says: the line, the name, the near match.
MALFORMED = [
    ("[]", "expected names with"),
    ("7", "expected names with"),
    ("text", "expected names with"),
    ("provider: {}", "1: provider: not a known name (did you mean 'providers'?)"),
    ("providers: []", "1: providers: expected names with"),
    ("providers: 7", "1: providers: expected names with"),
    ("prices: 7", "1: prices: expected names with"),
    ("prices: {m: 7}", "1: prices.m: expected names with"),
    ("prices:\n  m: {inptu: 1}", "prices.m.inptu: not a known name (did you mean 'in"),
    ("prices:\n  m: {input: -1}", "2: prices.m: the price of 'm': input is no price"),
    ("prices:\n  m: {input: x}", "input is no price"),
    ("prices:\n  m: {input: .nan}", "input is no price"),
    ("prices:\n  m: {input: [1]}", "prices.m.input: expected a price"),
    ("prices:\n  m: {cache_read: 1}", "2: prices.m: the price of 'm': a cache is"),
    ("prices:\n  m: {input: 1, currency: dollars}", "ISO 4217"),
    ("rates: [eur]", "1: rates: expected names with"),
    ("rates:\n  eur: 0", "2: rates.eur: the rate 'eur'"),
    ("rates:\n  euro: 1", "2: rates.euro: the rate 'euro'"),
    ("providers: {openai: 7}", "1: providers.openai: expected names with"),
    ("providers:\n  opnai: {}", "2: providers.opnai: "),
    ("providers:\n  opnai: {}", "openai"),
    ("providers: {openai: {account: []}}", "did you mean 'accounts'?"),
    (
        "providers: {openai: {accounts: 7}}",
        "providers.openai.accounts: expected a list, not 7",
    ),
    ("providers: {openai: {accounts: {}}}", "providers.openai.accounts"),
    ("providers: {openai: {accounts: [7]}}", "accounts[0]: expected names with"),
    ("providers: {openai: {base_url: 7}}", "base_url: expected a URL such as"),
    ("providers: {openai: {base_url: 'ftp://x/'}}", "the base URL"),
    ("providers: {openai: {base_url: 'http://u:p@x/'}}", "openai"),
    ("providers: {openai: {base_url: 'nonsense'}}", "openai"),
    ("providers: {openai: {}, openai: {}}", "1: 'openai' is there twice"),
    ("7: {}", "7: expected a name"),
    ("? [a]\n: b", "expected a name"),
    ("a: &x 1\nb: *x", "2: anchors are not read here"),
    ("a: [", "1"),
    ("a: {", "1"),
    ("a: 'b", "1"),
    ("\ta: b", "1: found character '\\t'"),
    ("a: b: c", "mapping values are not allowed here"),
    ("%YAML 9.9\n---\na: b", "incompatible YAML"),
    ("a: !!python/object:os.system x", "could not determine a constructor"),
    ("a: !custom x", "could not determine a constructor"),
    ("a: !!int x", "holds a value YAML cannot read"),
    ("---\na: 1\n---\nb: 2", "but found another document"),
    ("providers: {openai: {accounts: [{}]}}", "expected limits or a tier"),
    (
        _account("limits: []"),
        "4: providers.openai.accounts[0]: expected limits or a tier",
    ),
    (_account("limits: [500 rpm], tier: free"), "expected limits or a tier, not both"),
    (_account("limit: [500 rpm]"), "did you mean 'limits'?"),
    (_account("limits: [500]"), "accounts[0].limits[0]: expected a limit such"),
    (_account("limits: [null]"), "accounts[0].limits[0]: expected a limit such"),
    (_account("limits: [[500 rpm]]"), "accounts[0].limits[0]: expected a limit such"),
    (_account("limits: [0 rpm]"), "accounts[0].limits[0]: limit '0 rpm'"),
    (_account("limits: [-5 rpm]"), "limits[0]"),
    (_account("limits: [rpm]"), "limits[0]"),
    (_account("limits: ['']"), "limits[0]"),
    (_account("limits: [500 rpn]"), "did you mean 'rps'?"),
    (_account("limits: [500 rpm, 500 requests/minit]"), "limits[1]"),
    (_account("limits: [500 rpm, 600 rpm]"), "rule the same thing"),
    (_account("tier: nonsense"), "4: providers.openai.accounts[0].tier"),
    (_account("tier: []"), "accounts[0].tier: expected text or a whole number, not"),
    (_account("tier: free, model: nonsense"), "accounts[0].tier"),
    (_account("tier: free, model: 7"), "accounts[0].model: expected text, not 7"),
    (_account("api_key: sk-0123456789, limits: [5 rpm]"), "expected env:NAME"),
    (_account("api_key: 7, limits: [5 rpm]"), "accounts[0].api_key: expected env:NAME"),
    (
        _account("api_key: [], limits: [5 rpm]"),
        "accounts[0].api_key: expected env:NAME",
    ),
]

MALFORMED_TOML = [
    ("x", "bad.toml:1: "),
    ("a = 1\na = 2", "bad.toml:2: "),
    ("a = 1979-99-27", "bad.toml:1: "),
    ("[a", "bad.toml:1: "),
    ("a = [1,", "bad.toml"),
    ('a = "\x00"', "bad.toml:1: "),
    ("provider = 1", "did you mean 'providers'?"),
    ("[providers.openai]\naccounts = 7", "bad.toml:2: providers.openai.accounts"),
    ("[[providers.openai.accounts]]\nlimit = ['5 rpm']", "bad.toml:2: "),
    ("[providers]\nopenai = 7", "bad.toml:2: providers.openai"),
    ("lisen = ''", "bad.toml:1: lisen: not a known name (did you mean 'listen'?)"),
    ('store = """\nx"""\n\nlisten = 1', "bad.toml:4: listen: expected a host"),
    (
        "[[providers.openai.accounts]]\nlimits = [\n  '5 rpm',\n  '5 rpn',\n]",
        "bad.toml:4: providers.openai.accounts[0].limits[1]",
    ),
]


@pytest.mark.parametrize(("name", "text"), [("a.yaml", GOOD), ("a.toml", GOOD_TOML)])
def test_a_file_gives_accounts_with_limits_or_tiers(
    tmp_path: Path, name: str, text: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    config = load(path)
    openai = config.providers["openai"].accounts

    assert ("500 rpm", "120k tpm") == limits_of("openai", openai[0])
    assert "50 requests/minute" in str([*map(str, _parsed("openai", openai[1]))])
    assert "http://127.0.0.1:8000/v1" == config.providers["local"].base_url


def _parsed(name: str, account: object) -> tuple[object, ...]:
    from ratekeeper.config.model import Account
    from ratekeeper.core.limits import parse_limits

    assert isinstance(account, Account)
    return parse_limits(limits_of(name, account))


def test_a_file_gives_prices_and_rates(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        'prices:\n  my-model: {input: 2.50, output: "10"}\nrates: {holysheep/cny: 1}\n'
    )
    config = load(path)

    assert (2.5, "10", None) == (
        config.prices["my-model"].input,
        config.prices["my-model"].output,
        config.prices["my-model"].cache_read,
    )
    assert {"holysheep/cny": 1} == config.rates


@pytest.mark.parametrize(("text", "says"), MALFORMED)
def test_a_malformed_yaml_file_is_refused_by_name(
    tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)

    assert says in str(caught.value)
    assert "sk-0123456789" not in str(caught.value)


@pytest.mark.parametrize(("text", "says"), MALFORMED_TOML)
def test_a_malformed_toml_file_is_refused_by_line(
    tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)

    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe\x00", "is not UTF-8"),
        (b"a: " + b"[" * 100_000, "nested too deeply"),
        (b"#" * (1 << 20) + b"#", "expected at most"),
    ],
)
def test_what_is_no_text_or_too_much_is_refused(
    tmp_path: Path, content: bytes, says: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        load(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.yaml: No such file"):
        load(tmp_path / "absent.yaml")


def test_every_mistake_is_listed_not_the_first_alone(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "provider: {}\n"
        "providers:\n"
        "  openai:\n"
        "    accounts:\n"
        "      - {limits: [500 rpn]}\n"
        "      - {tier: nonsense}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(path)

    assert [1, 5, 6] == [
        int(line.split(":")[1]) for line in str(caught.value).splitlines()
    ]


def test_a_mistake_without_a_line_stands_apart_from_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("[]")

    with pytest.raises(ConfigError, match=r"^a\.yaml: expected names with"):
        load(path)


@pytest.mark.parametrize("said", ["", "store: sqlite:///ratekeeper.db\n"])
def test_a_store_is_beside_its_file(tmp_path: Path, said: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(said)

    assert f"sqlite:///{tmp_path / 'ratekeeper.db'}" == load(path).store


def test_a_store_with_a_whole_path_is_there(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("store: sqlite:////var/lib/x.db\n")

    assert "sqlite:////var/lib/x.db" == load(path).store


def test_an_empty_file_has_no_providers(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing yet\n")

    assert {} == load(path).providers


@given(st.text(max_size=200), st.sampled_from(["fuzz.yaml", "fuzz.toml"]))
def test_any_text_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str, name: str
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        outcome: object = load(path).providers
    except ConfigError as error:
        outcome = str(error)

    assert outcome or outcome == {}
