"""The way back: an answer's bytes to its caller, as they come, looked at on the way.

A stream is passed on part by part and may be cut, never repaired; a whole answer that is
short is read to its end first, so that its headers can say what it cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ratekeeper.client.pool import Unreached
from ratekeeper.core import units
from ratekeeper.errors import StoreUnavailable
from ratekeeper.gateway import links
from ratekeeper.gateway.fields import forwarded
from ratekeeper.gateway.links import LinkFilter
from ratekeeper.gateway.lists import Page
from ratekeeper.gateway.refused import Refused
from ratekeeper.gateway.reply import Fault
from ratekeeper.gateway.usage import UsageFilter

if TYPE_CHECKING:
    from ratekeeper.client.pool import Answer
    from ratekeeper.gateway.call import Call
    from ratekeeper.gateway.trial import Trial

    Headers = list[tuple[bytes, bytes]]

_BODILESS = frozenset([204, 304])  # nor do they say a length (RFC 9110, 8.6)
_MOST_LISTED = 8 * 1024 * 1024  # bytes of a page; OpenAI's of 10,000 files has three
_MOST_PAGES = 20  # without anything of the caller's, before it is shown an empty one
_MOST_WHOLE = 256 * 1024  # bytes of an answer that is read before its head is sent


async def relay(call: Call, answer: Answer, trial: Trial) -> bool:
    """Pass a good answer on and settle by it; True: call for the next page instead."""
    trial.answered(answer.fields)
    if call.lists is not None:
        return await _listed(call, answer, trial)
    length = answer.length
    if length is not None and length <= _MOST_WHOLE and not call.asked_usage:
        await _short(call, answer, trial)
    else:
        await _long(call, answer, trial)
    return False


async def _listed(call: Call, answer: Answer, trial: Trial) -> bool:
    """Pass on what a page holds for its caller; True: nothing, call for the next one."""
    body, cut = await answer.head(_MOST_LISTED)
    if cut is not None:
        raise Refused(
            Fault.UNREACHABLE,
            "the provider's list broke off or is too long: ask for fewer",
        )
    try:
        page = Page(body, call.dialect)
        own, hidden = await call.told_apart(page.names, trial.account.upstream)
        call.see_own(page.of(own))
        page.drop(hidden, nameless=call.gateway.roster.hides_unowned)
        query = page.next_query(call.query) if page.is_bare else None
    except msgspec.DecodeError as error:
        raise Refused(Fault.UNREACHABLE, "the provider's list is no JSON") from error
    except StoreUnavailable as error:
        raise Refused(
            Fault.UNAVAILABLE,
            "the gateway cannot look up whose things are listed",
            retry_after_us=units.SECOND,
        ) from error
    if query is not None and call.pages < _MOST_PAGES:
        call.query = query
        call.pages += 1
        trial.end(again=True)
        return True
    trial.end()
    body = page.body()
    if links.are_in(call.raw_path):
        body = links.relative(body)
    await pass_on(call, answer, head(call, answer), body)
    return False


async def _short(call: Call, answer: Answer, trial: Trial) -> None:
    body = await answer.whole()
    trial.feed(body)
    call.see(body)
    if links.are_in(call.raw_path):
        body = links.relative(body)
    cost = trial.end()
    headers = head(call, answer)
    if cost:
        said = ", ".join(
            f"{units.format_money(nano)} {unit}" for unit, nano in cost.items()
        )
        headers.append((b"x-ratekeeper-cost", said.encode()))
    await pass_on(call, answer, headers, body)


async def _long(call: Call, answer: Answer, trial: Trial) -> None:
    headers = head(call, answer)
    plain = not answer.header("content-encoding")
    changed: UsageFilter | LinkFilter | None = None
    if plain and call.asked_usage:
        changed = UsageFilter()
    elif plain and links.are_in(call.raw_path):
        changed = LinkFilter()
    if answer.length is not None and changed is None:
        headers.append((b"content-length", str(answer.length).encode()))
    send = call.send
    call.begin(answer.status)
    await send(
        {"type": "http.response.start", "status": answer.status, "headers": headers}
    )
    try:
        while part := await answer.part():
            trial.feed(part)
            call.see(part)
            if changed is not None:
                part = changed.feed(part)
                if not part:
                    continue
            await send({"type": "http.response.body", "body": part, "more_body": True})
    except Unreached:
        call.wire.cut()  # what is missing must be missing at the caller's as well
        return
    # Settled before the caller knows that it is over: it may come back at once.
    trial.end()
    rest = changed.end() if changed is not None else b""
    await send({"type": "http.response.body", "body": rest, "more_body": False})


async def pass_on(call: Call, answer: Answer, headers: Headers, body: bytes) -> None:
    """Send a provider's answer that is there as a whole."""
    # What HEAD is answered is as long as it would have been.
    length = answer.length if call.method == "HEAD" else len(body)
    if length is not None and answer.status not in _BODILESS:
        headers.append((b"content-length", b"%d" % length))
    await whole(call, answer.status, headers, body)


async def whole(call: Call, status: int, headers: Headers, body: bytes) -> None:
    """Send an answer that is there as a whole."""
    call.begin(status)
    await call.send(
        {"type": "http.response.start", "status": status, "headers": headers}
    )
    await call.send({"type": "http.response.body", "body": body, "more_body": False})


def head(call: Call, answer: Answer) -> Headers:
    """Return the headers of a provider's answer as the caller sees them."""
    headers = call.lead_here(forwarded(answer.headers))
    headers += call.own_headers()
    return headers
