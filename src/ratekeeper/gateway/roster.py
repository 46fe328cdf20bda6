"""Roster: who may call and who is called, compiled from a config over one store.

A reload compiles a new roster over the same store: limits of the same name keep what
was used, and nobody in line loses their place. It reads no file and sends nothing.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import msgspec

from ratekeeper.client import keys as provider_keys
from ratekeeper.client.cashier import Ask, Cashier
from ratekeeper.client.lessons import lessons_of
from ratekeeper.client.prices import price_book
from ratekeeper.config import times
from ratekeeper.config.checks import upstream_of, variable_of
from ratekeeper.config.model import Watched
from ratekeeper.config.tiers import limits_of, presets_by_model
from ratekeeper.core import policy, units
from ratekeeper.core.limits import Algorithm, Limit
from ratekeeper.core.line import Priority
from ratekeeper.gateway.admit import Crowd
from ratekeeper.gateway.bar import Bar
from ratekeeper.gateway.environment import completed
from ratekeeper.gateway.keys import KeyBook, KeyRecord
from ratekeeper.gateway.quota import QuotaHeaders
from ratekeeper.gateway.reply import Fault
from ratekeeper.gateway.upstream import Account, Upstream, fits
from ratekeeper.providers.facts import Dialect

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ratekeeper.config import model
    from ratekeeper.core.meter import Meter
    from ratekeeper.gateway import request
    from ratekeeper.gateway.keys import Hasher
    from ratekeeper.gateway.route import Route
    from ratekeeper.providers.catalog import Provider
    from ratekeeper.providers.pricing import PriceBook
    from ratekeeper.stores.keys import Scope, Target
    from ratekeeper.stores.memory import MemoryStore

_TEAM = "team/"  # what the name of a team's limits begins with
_LONGEST_WAIT_US = times.duration_us("10m")  # that a caller may ask for itself
_GOOGLES = frozenset(["gemini", "vertex"])  # they speak OpenAI's as well

# Google refuses by model, which is no reason to keep the account's other models waiting:
# a limit that lets all pass, and can be paused for each of them.
_REFUSALS = (
    policy.Rule(
        limit=Limit(
            amount=units.MAX_AMOUNT,
            unit="requests",
            window_us=units.SECOND,
            algorithm=Algorithm.TOKEN_BUCKET,
        ),
        text="what the provider allows of the model",
        is_told=False,
    ),
)

# What lacks is said to callers, and is their operator's to give.
_ASK = Ask(
    "the gateway's operator adds prices: {} to its config",
    "the gateway's operator adds rates: {} to its config",
)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """Who calls: whose limits, and how its calls stand in line."""

    name: str
    team: str
    owner: str  # whose what it makes at a provider is: its team's, else its own
    targets: tuple[Target, ...]
    quota: QuotaHeaders
    priority: int
    weight: int
    max_wait_us: int
    longest_wait_us: int  # that it may ask for
    record: KeyRecord | None = None
    bar: Bar = dataclasses.field(default_factory=Bar)

    @property
    def flow(self) -> str:
        """Who shares its turn in a line: its team, else it stands for itself."""
        return self.owner

    def whose(self, meter: Meter) -> str:
        """Say whose limit of those it goes by one is: its key's, or its team's."""
        team = self.team and any(
            meter in scope.rows.get(key, ())
            for scope, key in self.targets
            if scope.name.startswith(_TEAM)
        )
        return f"team '{self.team}'" if team else "this key"

    @property
    def is_restricted(self) -> bool:
        """Whether its key allows some models only."""
        return self.record is not None and bool(self.record.allow_models)

    def may_use(self, name: str) -> bool:
        """Say whether its key allows a model."""
        return self.record is None or self.record.allows(name)


class Roster:
    """The compiled config."""

    def __init__(
        self,
        config: model.Config,
        *,
        store: MemoryStore,
        hasher: Hasher,
        records: Iterable[KeyRecord],
        revoked: Mapping[str, str],
        environ: Mapping[str, str],
    ) -> None:
        config, self.off = completed(config, environ)  # by name: what is not set
        self._config = config
        self._store = store
        self._hasher = hasher
        self._reshapes: list[tuple[Scope, tuple[policy.Rule, ...]]] = []
        self.prices = _prices(config)
        self.upstreams = {
            name: self._upstream(name, one, environ)
            for name, one in config.providers.items()
        }
        self.accounts = [a for one in self.upstreams.values() for a in one.accounts]
        self.fallbacks = config.fallbacks
        # What has been found for a route, a model, and a body that is no JSON.
        self.targets: dict[tuple[Route, str, bool], list[request.Destination]] = {}
        self.max_body = times.size_of(config.max_body)
        self.max_held = times.size_of(config.max_held)
        self._teams = {
            name: (self._ours(f"{_TEAM}{name}", team.limits, shadow=team.shadow), team)
            for name, team in config.teams.items()
        }
        for key in config.client_keys:
            self._ours(f"key/{key.name}", key.limits, shadow=key.shadow)
        self._callers: dict[str, Caller] = {}  # by digest
        self.edition: object  # another one with every change of the keys
        self.teamless: dict[str, str]  # keys of the store whose team the config lacks
        self.rekey(records, revoked)
        self.anyone = self._anyone() if config.auth == "none" else None

    def enforce(self) -> None:
        """Put the limits in force: until now nothing has changed.

        One that is gone altogether keeps what was used of it, lest it be forgiven when
        it is put back; whoever waits for it is to look up its limits anew.
        """
        for scope, rules in self._reshapes:
            self._store.reshape(scope, rules)

    def take_over(self, other: Roster) -> None:
        """Keep those accounts closed that were so under the roster before."""
        before = {account.name: account for account in other.accounts}
        for account in self.accounts:
            if account.name in before:
                account.take_over(before[account.name])

    def rekey(self, records: Iterable[KeyRecord], revoked: Mapping[str, str]) -> None:
        """Take in the client keys anew, and the names of those that were revoked."""
        records = list(records)
        self._revoked = revoked
        self._book = KeyBook.joined(self._hasher, self._config.client_keys, records)
        self.teamless = {r.name: r.team for r in records if not self._has_team(r)}
        self._callers.clear()
        owners = {_owner(one.name, one.team) for one in self._book}
        if self._config.auth == "none":
            owners.add("")
        self.is_shared = len(owners) > 1
        # What nobody is known to have made is anybody's of several.
        self.hides_unowned = self.is_shared and self._config.unowned == "hidden"
        self.edition = object()

    def caller(self, secret: str, now_us: int) -> Caller | None:
        """Return who calls with a key, None where nobody knows it, or its team."""
        record = self._book.find(secret)
        if record is None or record.is_expired(now_us) or not self._has_team(record):
            return None
        caller = self._callers.get(record.digest)
        if caller is None or caller.record is not record:
            caller = self._callers[record.digest] = self._caller(record)
        return caller

    def stranger(self, secret: str, now_us: int) -> tuple[str, Fault]:
        """Return whose key it was that lets nobody in, "" for nobody's, and why."""
        if name := self._revoked.get(self._hasher.digest(secret)):
            return name, Fault.REVOKED
        record = self._book.find(secret)
        if record is None:
            return "", Fault.UNKNOWN_KEY
        is_over = record.is_expired(now_us)
        return record.name, Fault.EXPIRED if is_over else Fault.UNKNOWN_KEY

    def _has_team(self, record: KeyRecord) -> bool:
        """Say whether the limits of a key's team are known: else it lets nobody in."""
        return not record.team or record.team in self._teams

    # Who calls.

    def _caller(self, record: KeyRecord) -> Caller:
        targets: list[Target] = []
        if record.limits:
            rules = _rules(record.limits, shadow=record.shadow)
            scope = self._store.named(f"key/{record.name}", rules)
            self._store.reshape(scope, rules)
            targets.append((scope, ""))
        team_scope, team = self._teams.get(record.team, (None, None))
        if team_scope is not None:
            targets.append((team_scope, ""))
        priority = record.priority or (team and team.priority) or "normal"
        said = record.max_wait_us
        if said is None and team is not None and team.max_wait:
            said = times.duration_us(team.max_wait)
        usual = times.duration_us(self._config.max_wait)
        return Caller(
            name=record.name,
            team=record.team,
            owner=_owner(record.name, record.team),
            targets=tuple(targets),
            quota=QuotaHeaders([r for scope, _ in targets for r in scope.rules]),
            priority=Priority.named(priority),
            weight=team.weight if team is not None else 1,
            max_wait_us=usual if said is None else said,
            longest_wait_us=_LONGEST_WAIT_US if said is None else said,
            record=record,
        )

    def _anyone(self) -> Caller:
        return Caller(
            name="",
            team="",
            owner=_owner("", ""),
            targets=(),
            quota=QuotaHeaders([]),
            priority=Priority.NORMAL,
            weight=1,
            max_wait_us=times.duration_us(self._config.max_wait),
            longest_wait_us=_LONGEST_WAIT_US,
        )

    def _ours(self, name: str, limits: model.Limits, *, shadow: bool) -> Scope | None:
        if not limits:
            return None
        return self._planned(name, _rules(limits, shadow=shadow))

    # Who is called.

    def _upstream(
        self, name: str, said: model.Provider, environ: Mapping[str, str]
    ) -> Upstream:
        accounts = tuple(
            self._account(name, at, said, account, environ)
            for at, account in enumerate(said.accounts)
        )
        dialects = {one.provider.speaks for one in accounts}
        if any(one.provider.name in _GOOGLES for one in accounts):
            dialects.add(Dialect.GEMINI)
        return Upstream(name, frozenset(dialects), accounts, tuple(said.models))

    def _account(
        self,
        upstream: str,
        at: int,
        said: model.Provider,
        account: model.Account,
        environ: Mapping[str, str],
    ) -> Account:
        provider = upstream_of(upstream, account.base_url or said.base_url)
        variable = variable_of(upstream, said, account)
        name = f"{upstream}/{account.name or variable or at + 1}"
        key = provider_keys.find_key(provider, account.api_key or None, environ)
        headers, native = _proofs(provider, "" if key is None else key.value)
        limits, known = _limits_of(upstream, account), provider.account()
        words = tuple(one for one in limits if policy.means_learned(_text(one)))
        told = tuple(one for one in limits if one not in words)
        cashier = Cashier(provider, self.prices, _ASK)
        beside = (
            self._planned(f"account/{name} (told)", _rules(told, known))
            if (words and told)
            else None
        )
        return Account(
            name=name,
            upstream=upstream,
            provider=provider,
            proxy=said.proxy or None,
            headers=headers,
            native_headers=native,
            scope=self._planned(f"account/{name}", _rules(words or told, known)),
            is_learned=bool(words),
            beside=beside,
            refusals=(
                self._planned(f"account/{name} (models)", _REFUSALS)
                if not words and provider.name in _GOOGLES
                else None
            ),
            models=[
                *(
                    (
                        functools.partial(fits, pattern),
                        self._model(name, pattern, own, known),
                    )
                    for pattern, own in said.models.items()
                    if own
                ),
                *(
                    (one.fits, self._model(name, one.models[0], one.limits, known))
                    for one in presets_by_model(upstream, account)
                ),
            ],
            cashier=cashier,
            lessons=lessons_of(self._store),
            now_us=self._store.now_us,
            crowd=Crowd(self._store),
        )

    def _model(
        self,
        account: str,
        pattern: str,
        limits: Sequence[str | Watched | Limit],
        known: policy.Account,
    ) -> Scope:
        return self._planned(f"model/{account}/{pattern}", _rules(limits, known))

    def _planned(self, name: str, rules: tuple[policy.Rule, ...]) -> Scope:
        """Return the scope of a name; its rules are put in force with all others."""
        scope = self._store.named(name, rules)
        self._reshapes.append((scope, rules))
        return scope


def _proofs(
    provider: Provider, key: str
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return the headers that prove an account: usually, and at its own API's root."""
    if not key:
        return [], []
    scheme = provider.auth_scheme
    usual = [(provider.auth_header, f"{scheme} {key}" if scheme else key)]
    if provider.name == "gemini":
        # Google takes a bearer for a person's token everywhere but below /openai.
        return usual, [("x-goog-api-key", key)]
    return usual, usual


def _owner(name: str, team: str) -> str:
    if team:
        return f"{_TEAM}{team}"
    return f"key/{name}" if name else ""


def _rules(
    limits: Sequence[str | Watched | Limit],
    account: policy.Account | None = None,
    *,
    shadow: bool = False,
) -> tuple[policy.Rule, ...]:
    """Return the rules of limits, those that are only watched marked so."""
    watched = {
        at
        for at, one in enumerate(limits)
        if shadow or (isinstance(one, Watched) and one.shadow)
    }
    return policy.rules_of([_text(one) for one in limits], account, shadow=watched)


def _text(limit: str | Watched | Limit) -> str | Limit:
    return limit.limit if isinstance(limit, Watched) else limit


def _limits_of(
    upstream: str, account: model.Account
) -> tuple[str | Watched | Limit, ...]:
    """Return the limits of an account: said, by tier, or learned."""
    if account.tier == "" and not isinstance(account.limits, str):
        return tuple(account.limits)
    return limits_of(upstream, account)


def _prices(config: model.Config) -> PriceBook:
    """Return the price book: the operator's own prices, then the lists'."""
    said = {
        name: {
            field: value
            for field, value in msgspec.structs.asdict(price).items()
            if value is not None
        }
        for name, price in config.prices.items()
    }
    return price_book(said, rates=dict(config.rates))
