"""What `check-key` says of a key: a verdict, what to do, and the facts as JSON.

One sentence for each status and each way of not getting an answer. It asks nothing, and
of a key it knows no more than its last four characters.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ratekeeper.client import keys
from ratekeeper.client.check import KeyStatus
from ratekeeper.core import units

if TYPE_CHECKING:
    from ratekeeper.client.check import KeyCheck
    from ratekeeper.client.keys import ApiKey
    from ratekeeper.client.shown import ShownLimit
    from ratekeeper.providers.catalog import Provider

_LABEL = 10  # columns before what a row says
_FIRST_REDIRECT = 300
_FIRST_ERROR = 400
_NOT_FOUND = 404
_PROXY_AUTH = 407
_FIRST_OF_ITS_OWN = 500


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A key, what a check found of it, and how it was asked."""

    provider: Provider
    key: ApiKey
    check: KeyCheck
    probed: bool
    timeout_s: float

    def lines(self) -> list[str]:
        """Write it for a person."""
        verdict, advice = self._said()
        rows = [f"{self.provider.name}: {verdict}"]
        if self.check.round_trip_s is not None:
            rows += _row(
                "answered" if self.check.http_status else "asked", [self._trip()]
            )
        if self.check.ok:
            rows += _row("limits", self._limits())
        if advice:
            rows += _row("to do", [advice])
        return rows

    def warnings(self) -> list[str]:
        """Say what is odd about the form of a key that may work all the same."""
        known = keys.looks_known(self.provider, self.key.value)
        if known or self.check.round_trip_s is None:
            return []
        prefixes = " or ".join(self.provider.key_prefixes)
        return [
            f"{self._named()} does not begin like a key of {self.provider.name} "
            f"({prefixes}): it was sent all the same"
        ]

    def facts(self) -> dict[str, Any]:
        """Return the same as JSON; the names stay."""
        found = self.check
        verdict, advice = self._said()
        trip_s = found.round_trip_s
        return {
            "provider": self.provider.name,
            "host": found.host or None,
            "proxy": found.proxy or None,
            "variable": self.key.variable or None,
            "key": found.key or None,
            "ok": found.ok,
            "status": found.status.value,
            "reason": found.reason or None,
            "http_status": found.http_status,
            "code": found.code or None,
            "round_trip_ms": None if trip_s is None else round(trip_s * 1000, 1),
            "retry_after_s": found.retry_after_s,
            "limits": [dataclasses.asdict(limit) for limit in found.limits],
            "warnings": self.warnings(),
            "verdict": verdict,
            "to_do": advice or None,
        }

    def _named(self) -> str:
        place = self.key.variable or "standard input"
        return f"the key of {place} ({self.key})"

    def _answer(self) -> str:
        code = f" ({self.check.code})" if self.check.code else ""
        return f"{self.check.host} answered {self.check.http_status}{code}"

    def _again(self, otherwise: str) -> str:
        wait_s = self.check.retry_after_s
        if wait_s is None:
            return otherwise
        return f"try again in {units.format_wait(units.micros(wait_s))}"

    def _said(self) -> tuple[str, str]:
        """Return the verdict, and what to do about it."""
        named, answer = self._named(), self._answer()
        match self.check.status:
            case KeyStatus.OK:
                return f"{named} is valid", ""
            case KeyStatus.THROTTLED:
                again = self._again("it does not say for how long")
                return f"{named} is valid, throttled just now: {answer}; {again}", ""
            case KeyStatus.NO_CREDIT:
                return (
                    f"{named} is valid, and its account is stopped: {answer}; credit or "
                    "a spend cap is used up",
                    "see the plan and billing pages of the account; waiting does not help",
                )
            case KeyStatus.NO_PERMISSION:
                return (
                    f"{named} is known, and has no permission: {answer}",
                    "check the permissions of the key, its project, and whether the "
                    f"provider serves this country{self._or_probe('is not allowed it')}",
                )
            case KeyStatus.REFUSED:
                return (
                    f"{named} is refused: {answer}",
                    "check that it was copied whole, belongs to this provider and was "
                    f"not revoked; else {self._how_to()}",
                )
            case KeyStatus.MISSING:
                return self._missing(), self._how_to()
            case KeyStatus.MALFORMED:
                place = self.key.variable or "standard input"
                complaint = keys.malformed(self.provider, self.key.value)
                return f"{place} {complaint}; nothing was sent", self._how_to()
            case KeyStatus.UNREACHABLE:
                return self._unreachable()
            case _:
                return self._cannot_tell()

    def _missing(self) -> str:
        if self.key.variable:
            return f"there is no key: {self.key.variable} is not set or empty"
        return "there is no key: standard input is empty"

    def _how_to(self) -> str:
        """Say how to set a key: the line to type, the form, and where to get one."""
        variable = self.key.variable or self.provider.key_variable
        prefixes = self.provider.key_prefixes
        form = f"{prefixes[0]}…" if prefixes else "…"
        text = f"type: export {variable}={form}" if variable else "pipe in another"
        if prefixes:
            text += f"; keys begin with {' or '.join(prefixes)}"
        if self.provider.key_url:
            text += f"; get one at {self.provider.key_url}"
        return text

    def _or_probe(self, why: str) -> str:
        if self.probed:
            return ""
        return f"; the list of models was asked for: if it {why}, try --probe --model MODEL"

    def _cannot_tell(self) -> tuple[str, str]:
        status = self.check.http_status or 0
        if status >= _FIRST_OF_ITS_OWN:
            return (
                f"nobody can tell: {self._answer()}, which is trouble of its own and "
                f"says nothing of {self._named()}",
                self._again("try again in a minute"),
            )
        verdict = f"nobody can tell: {self._answer()}"
        if status == _PROXY_AUTH:
            return verdict, "put user and password of the proxy into HTTPS_PROXY"
        if status < _FIRST_REDIRECT:
            return (
                f"{verdict} with something that is no answer of a provider",
                "check --base-url, and whether a page to log in is on the way",
            )
        if status < _FIRST_ERROR:
            return (
                f"{verdict}, which is a redirect and is not followed",
                "check --base-url: it may need https, another host or another path",
            )
        what = "check --model and --base-url" if self.probed else "check --base-url"
        if status == _NOT_FOUND:
            return verdict, what + self._or_probe("is not served there")
        return f"{verdict}: it rejects the question itself", what + self._or_probe(
            "wants more"
        )

    def _unreachable(self) -> tuple[str, str]:
        host, timeout = self.check.host, f"{self.timeout_s:g} s"
        match self.check.reason:
            case "refused":
                said = f"{host} refused the connection, or no route leads to it"
                check = "--base-url, that the server is running, and the firewall"
            case "dns":
                said = f"the name of {host} cannot be resolved"
                check = "--base-url, the network connection and the DNS server"
            case "tls":
                said = f"no secure connection to {host}"
                check = (
                    "that it speaks https, the CA certificates of this machine "
                    "(SSL_CERT_FILE), its clock, and whether something reads the traffic"
                )
            case "proxy":
                said = f"the proxy {self.check.proxy} did not connect to {host}"
                check = "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY"
            case "connect-timeout":
                said = f"{host} did not accept a connection within {timeout}"
                check = "the network and the firewall"
            case "read-timeout":
                said = f"{host} took the question and did not answer within {timeout}"
                check = "the provider's status page, or raise --timeout"
            case "deadline":
                said = f"{host} was not reached within {timeout}: the look-up of its "
                said += "name or its addresses hang"
                check = "the DNS server, the network and the firewall"
            case _:
                said = f"the connection to {host} broke before the answer was complete"
                check = "the network, and whether something on the way cuts connections"
        return f"unreachable: {said}", f"check {check}{self._by_proxy()}"

    def _by_proxy(self) -> str:
        if self.check.reason == "proxy":
            return ""
        if self.check.proxy:
            return f"; it was asked through the proxy {self.check.proxy}"
        return "; no proxy was used: where only one leads out, set HTTPS_PROXY"

    def _trip(self) -> str:
        trip_ms = round((self.check.round_trip_s or 0) * 1000)
        by = f", through the proxy {self.check.proxy}" if self.check.proxy else ""
        if self.check.http_status is None:
            return f"{self.check.host}, given up after {trip_ms} ms"
        what = f"{self.check.http_status} from {self.check.host}"
        return f"{what} in {trip_ms} ms, connection included{by}"

    def _limits(self) -> list[str]:
        if self.check.limits:
            return [_limit(one) for one in self.check.limits]
        if self.probed:
            return ["the answer shows no limits"]
        return [
            "the answer shows no limits: --probe --model MODEL asks with one call of one "
            "token, whose answer may"
        ]


def _row(label: str, texts: list[str]) -> list[str]:
    """Write rows of one label, which stands before the first."""
    labels = [label] + [""] * (len(texts) - 1)
    return [
        f"  {label:<{_LABEL}}{text}" for label, text in zip(labels, texts, strict=True)
    ]


def _limit(one: ShownLimit) -> str:
    if one.limit is not None:
        name = one.limit
    elif one.amount is not None:
        name = (
            f"{units.format_amount(one.amount)} {one.unit} (it does not say per what)"
        )
    else:
        name = one.unit
    parts = [] if one.remaining is None else [f"{one.remaining:,} remaining"]
    if one.full_after_s and one.remaining != one.amount:
        parts.append(
            f"whole again in {units.format_wait(units.micros(one.full_after_s))}"
        )
    return ": ".join([name, ", ".join(parts)] if parts else [name])
