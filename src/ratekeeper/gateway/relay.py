"""The way back: an answer's bytes to its caller, as they come, looked at on the way.

A stream is passed on part by part and may be cut, never repaired; a whole answer that is
short is read to its end first, so that its headers can say what it cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratekeeper.client.pool import Unreached
from ratekeeper.core import units
from ratekeeper.gateway import links
from ratekeeper.gateway.fields import forwarded
from ratekeeper.gateway.links import LinkFilter
from ratekeeper.gateway.usage import UsageFilter

if TYPE_CHECKING:
    from ratekeeper.client.pool import Answer
    from ratekeeper.gateway.call import Call
    from ratekeeper.gateway.trial import Trial

    Headers = list[tuple[bytes, bytes]]

_MOST_WHOLE = 256 * 1024  # bytes of an answer that is read before its head is sent


async def relay(call: Call, answer: Answer, trial: Trial) -> None:
    """Pass a good answer on and settle by it."""
    trial.answered(answer.fields)
    length = answer.length
    if length is not None and length <= _MOST_WHOLE:
        await _short(call, answer, trial)
    else:
        await _long(call, answer, trial)


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
    # What HEAD is answered is as long as it would have been.
    length = answer.length or 0 if call.method == "HEAD" else len(body)
    headers.append((b"content-length", b"%d" % length))
    await whole(call, answer.status, headers, body)


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
