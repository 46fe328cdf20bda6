"""What a whole config must be: its limits, names, addresses and what they refer to.

Each check looks at one part, as far as its shape is right, and notes what is wrong
there; none stops another. No file, no environment: the same data gives the same
mistakes anywhere.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

from ratekeeper.config.addresses import check_proxy, host_and_port
from ratekeeper.config.findings import fits, fitting, near
from ratekeeper.config.forms import form
from ratekeeper.config.model import Account, ClientKey, Config, Price, Provider, Team
from ratekeeper.config.tiers import limits_of
from ratekeeper.config.times import duration_us, instant_us, size_of
from ratekeeper.core.limits import Limit
from ratekeeper.core.policy import means_learned, rules_of
from ratekeeper.errors import ConfigError
from ratekeeper.providers.catalog import PROVIDERS, find_provider
from ratekeeper.providers.pricing import PriceBook
from ratekeeper.stores.database import path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ratekeeper.config.findings import Findings
    from ratekeeper.config.source import Place
    from ratekeeper.core.policy import Account as Known
    from ratekeeper.providers.catalog import Provider as Upstream

S = TypeVar("S")
T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:\-]{0,63}", re.ASCII)
_VARIABLE = re.compile(r"env:\s*[A-Za-z_][A-Za-z0-9_]{0,63}\s*", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MOST_WEIGHT = 16
_WHOLE = {
    "listen": host_and_port,
    "store": path_of,
    "max_body": size_of,
    "max_held": size_of,
    "max_wait": duration_us,
    "notice": duration_us,
    "drain": duration_us,
}


def check(data: Any, findings: Findings) -> None:
    """Find everything that is wrong in the data of a file."""
    findings.shape(data, Config)
    if isinstance(data, dict):
        _Checks(data, findings).whole()


def upstream_of(name: str, base_url: str) -> Upstream:
    """Return the provider that a name and a base URL stand for."""
    if name.lower() in PROVIDERS:
        found = find_provider(name, base_url=base_url or None)
    else:
        found = find_provider(base_url or name)
    if not found.base_url:
        form = found.base_form
        msg = f"{name} has an address for each account: give base_url, as {form}"
        raise ConfigError(msg)
    return found


def variable_of(name: str, provider: Provider, account: Account) -> str:
    """Return the variable that holds an account's key, "" where it needs none."""
    if account.api_key:
        return account.api_key.removeprefix("env:").strip()
    return upstream_of(name, account.base_url or provider.base_url).key_variable or ""


class _Checks:
    """The data of one file, whose parts refer to each other."""

    def __init__(self, data: dict[str, Any], findings: Findings) -> None:
        self._data = data
        self._findings = findings
        self._rates = PriceBook()

    def whole(self) -> None:
        """Check it from the top down."""
        self._settings()
        self._money()
        for name, said in _items(self._data, "providers"):
            self._provider(name, said)
        for model, targets in _items(self._data, "fallbacks"):
            self._fallback(("fallbacks", model), targets)
        for name, said in _items(self._data, "teams"):
            self._team(name, said)
        self._client_keys()

    def _settings(self) -> None:
        said: dict[str, Any] = {}
        for name, read in _WHOLE.items():
            value = self._data.get(name)
            if isinstance(value, str):
                said[name] = self._told((name,), read, value)
        body, held = said.get("max_body"), said.get("max_held")
        usual = Config()
        body = size_of(usual.max_body) if "max_body" not in said else body
        held = size_of(usual.max_held) if "max_held" not in said else held
        if body and held and body > held:
            place = ("max_held",) if "max_held" in said else ("max_body",)
            text = "max_body is more than max_held: one such request would not fit"
            self._findings.add(place, text)

    def _money(self) -> None:
        for model, price in _items(self._data, "prices"):
            if fits(price, Price):
                self._told(
                    ("prices", model),
                    lambda one: PriceBook({one[0]: one[1]}),
                    (model, price),
                )
        rates = {
            name: rate
            for name, rate in _items(self._data, "rates")
            if self._told(
                ("rates", name), lambda one: PriceBook(rates=one), {name: rate}
            )
        }
        self._rates = PriceBook(rates=rates)

    # Who is called.

    def _provider(self, name: str, data: Any) -> None:
        place: Place = ("providers", name)
        self._name(place, name)
        if not isinstance(data, dict):
            return
        provider = fitting(data, Provider)
        if provider.proxy:
            self._told((*place, "proxy"), check_proxy, provider.proxy)
        known = self._accounts(name, data, provider.base_url)
        for pattern, limits in _items(data, "models"):
            under = (*place, "models", pattern)
            if not pattern:
                self._findings.add(under, "expected a model or a pattern")
            if limits == []:
                self._findings.add(under, f"expected {form(under, list)}, not none")
            self._limits(under, limits, known.account() if known else None)

    def _accounts(
        self, name: str, data: dict[str, Any], base_url: str
    ) -> Upstream | None:
        """Check the accounts; return the provider they are with, None: no such."""
        place: Place = ("providers", name)
        accounts = [one for one in _list(data, "accounts") if isinstance(one, dict)]
        own = [_text(one, "base_url") for one in accounts]
        known: Upstream | None = None
        has_address = isinstance(data.get("base_url", ""), str)
        if has_address and (base_url or not accounts or not all(own)):
            at = (*place, "base_url") if base_url else place
            known = self._told(at, lambda url: upstream_of(name, url), base_url)
        names: dict[str, int] = {}
        for number, said in enumerate(_list(data, "accounts")):
            if not isinstance(said, dict):
                continue
            here = (*place, "accounts", number)
            account = fitting(said, Account)
            there = known
            if account.base_url:
                at = (*here, "base_url")
                there = self._told(
                    at, lambda url: upstream_of(name, url), account.base_url
                )
            known = known or there
            self._account(name, there, said, account, here)
            called = account.name or account.api_key or str(number + 1)
            if names.setdefault(called, number) != number:
                text = (
                    f"accounts[{names[called]}] has the same name: give each its name"
                )
                self._findings.add(here, text)
        return known

    def _account(
        self,
        name: str,
        there: Upstream | None,
        data: dict[str, Any],
        account: Account,
        place: Place,
    ) -> None:
        if account.name:
            self._name((*place, "name"), account.name)
        if account.api_key and not _VARIABLE.fullmatch(account.api_key):
            text = "expected env:NAME, the variable that holds the key, not a key"
            self._findings.add((*place, "api_key"), text)
        has_limits, has_tier = bool(data.get("limits")), data.get("tier", "") != ""
        if has_limits == has_tier:
            text = "expected limits or a tier" + (", not both" if has_limits else "")
            self._findings.add(place, text)
        elif account.tier != "" and there is not None:
            self._told((*place, "tier"), lambda one: limits_of(name, one), account)
        elif has_limits:
            known = there.account() if there else None
            self._limits((*place, "limits"), data["limits"], known, learns=True)

    # Who calls.

    def _team(self, name: str, data: Any) -> None:
        place: Place = ("teams", name)
        self._name(place, name)
        if not isinstance(data, dict):
            return
        team = fitting(data, Team)
        if not 1 <= team.weight <= _MOST_WEIGHT:
            text = f"{team.weight}: expected a weight from 1 to {_MOST_WEIGHT}"
            self._findings.add((*place, "weight"), text)
        if team.max_wait:
            self._told((*place, "max_wait"), duration_us, team.max_wait)
        self._limits((*place, "limits"), data.get("limits"))

    def _client_keys(self) -> None:
        names: dict[str, int] = {}
        hashes: dict[str, int] = {}
        for at, data in enumerate(_list(self._data, "client_keys")):
            if not isinstance(data, dict):
                continue
            place: Place = ("client_keys", at)
            key = fitting(data, ClientKey, name=f"key-{at}", hash=f"{at:064x}")
            self._client_key(key, data, place)
            if names.setdefault(key.name, at) != at:
                text = f"client_keys[{names[key.name]}] has the same name"
                self._findings.add((*place, "name"), text)
            if hashes.setdefault(key.hash, at) != at and _DIGEST.fullmatch(key.hash):
                text = f"client_keys[{hashes[key.hash]}] has the same hash"
                self._findings.add((*place, "hash"), text)

    def _client_key(self, key: ClientKey, data: dict[str, Any], place: Place) -> None:
        self._name((*place, "name"), key.name)
        if not _DIGEST.fullmatch(key.hash):
            text = "expected a key's hash of 64 hexadecimal digits, not the key itself"
            self._findings.add((*place, "hash"), text)
        teams = [name for name, _ in _items(self._data, "teams")]
        if key.team and key.team not in teams:
            text = f"there is no team '{key.team}'{near(key.team, teams)}"
            self._findings.add((*place, "team"), text)
        for at, pattern in enumerate(_list(data, "allow_models")):
            if isinstance(pattern, str) and (not pattern or pattern != pattern.strip()):
                text = "expected a model or a pattern such as gpt-4o*"
                self._findings.add((*place, "allow_models", at), text)
        if key.max_wait:
            self._told((*place, "max_wait"), duration_us, key.max_wait)
        if key.expires:
            self._told((*place, "expires"), instant_us, key.expires)
        self._limits((*place, "limits"), data.get("limits"))

    # What all of them have.

    def _fallback(self, place: Place, targets: Any) -> None:
        configured = [name for name, _ in _items(self._data, "providers")]
        for at, target in enumerate(targets if isinstance(targets, list) else []):
            if not isinstance(target, str):
                continue
            name, _, model = target.partition("/")
            here = (*place, at)
            if not name or not model:
                text = f"{target!r}: expected provider/model, such as openai/gpt-4o"
                self._findings.add(here, text)
            elif name not in configured and name not in PROVIDERS:
                known = [*configured, *PROVIDERS]
                self._findings.add(
                    here, f"no provider is called '{name}'{near(name, known)}"
                )
            elif name not in configured:
                self._told(here, lambda one: upstream_of(one, ""), name)

    def _limits(
        self,
        place: Place,
        said: Any,
        known: Known | None = None,
        *,
        learns: bool = False,
    ) -> None:
        """Check limits one by one, then all of them together."""
        listed = said if isinstance(said, list) else [said]
        said = [one.get("limit") if isinstance(one, dict) else one for one in listed]
        texts = [one for one in said if isinstance(one, str)]
        right = [
            self._limit((*place, at), text, listed[at], learns=learns)
            for at, text in enumerate(said)
            if isinstance(text, str)
        ]
        is_known = known is not None or not any(map(means_learned, texts))
        if texts and len(texts) == len(listed) and all(right) and is_known:
            self._told(place, lambda all_: rules_of(all_, known), texts)

    def _limit(self, place: Place, text: str, said: Any, *, learns: bool) -> bool:
        """Check one; say whether it is right by itself."""
        if means_learned(text):
            if learns and isinstance(said, str):
                return True
            wrong = "is for accounts: give a limit such as '60 rpm'"
            if learns:
                wrong = "cannot be only watched"
            self._findings.add(place, f"'{text}' {wrong}")
            return False
        limit = self._told(place, Limit.parse, text)
        if limit is not None and limit.is_money:
            self._has_rate(place, limit.unit)
        return limit is not None

    def _has_rate(self, place: Place, currency: str) -> None:
        providers = [name for name, _ in _items(self._data, "providers")]
        if any(self._rates.rate(name, currency) is None for name in providers or [""]):
            text = f"no rate of {currency}: under rates, say how much of it buys what "
            self._findings.add(place, text + "a dollar buys")

    def _name(self, place: Place, name: str) -> None:
        if not _NAME.fullmatch(name):
            text = "expected a name of letters, digits, '-', '_', '.', ':' and '@'"
            self._findings.add(place, text + ", at most 64")

    def _told(self, place: Place, read: Callable[[S], T], said: S) -> T | None:
        return self._findings.told(place, lambda: read(said))


def _items(data: dict[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    value = data.get(name)
    yield from value.items() if isinstance(value, dict) else ()


def _list(data: dict[str, Any], name: str) -> list[Any]:
    value = data.get(name)
    return value if isinstance(value, list) else []


def _text(data: Any, name: str) -> str:
    value = data.get(name, "") if isinstance(data, dict) else ""
    return value if isinstance(value, str) else ""
