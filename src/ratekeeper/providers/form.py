"""Forms: the fields of a multipart body (RFC 7578), as everybody would read them.

Who decides by a form must see in it what its provider sees. So whatever two readers
could take for different things is `Unclear`: text around the parts, a header that is
folded, stands twice or hides what follows. No byte is looked at more often than a few
times, whatever the body. Files are stepped over. Pure.
"""

from __future__ import annotations

import re

_CRLF = b"\r\n"
_MOST_PARTS = 1000
_MOST_LINES = 8  # of a part's head; clients write three
_LONGEST_LINE = 4096  # a path of Linux, which is what may stand in for a file's name
_LONGEST_BOUNDARY = 70

_TOKEN = rb"[^\s\"\\;,=()<>@:/\[\]?]++"
_QUOTED = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TYPE = re.compile(
    rb"multipart/form-data((?:[ \t]*+;[ \t]*+%b=(?:%b|%b))*+)[ \t]*+"
    % (_TOKEN, _TOKEN, _QUOTED),
    re.IGNORECASE,
)
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]++):[ \t]*+([^\r\n\0]*+)")
_VALUE = rb'(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"|[^\s";,\\]++)'
_DISPOSITION = re.compile(
    rb"form-data((?:[ \t]*+;[ \t]*+(?:filename\*|filename|name)=%b)++)[ \t]*+" % _VALUE,
    re.IGNORECASE,
)
_PARAMETER = re.compile(rb";[ \t]*+([^=;\s]++)=(%b)" % _VALUE)
_NAMED = re.compile(rb";[ \t]*+(?:file)?name\*?[ \t]*+=", re.IGNORECASE)
_AS_IT_IS = frozenset([b"7bit", b"8bit", b"binary"])
# In these ASCII is ASCII, so what is no more than that is the same in all of them.
_CHARSETS = re.compile(rb"utf-8|us-ascii|ascii|latin-?1|iso-8859-\d+|windows-125\d")
# A file's name as RFC 8187 writes it; some take what is written otherwise for none.
_EXTENDED = re.compile(rb"\"?[\w.-]+'[\w-]*'[^'\"]+\"?")
_CHARSET = re.compile(rb';[ \t]*+charset="?([^\s";]++)', re.IGNORECASE)


class Unclear(Exception):
    """What a form says is up to its reader."""


def fields(body: bytes, content_type: bytes = b"") -> list[tuple[str, bytes]]:
    """Return the fields of a form in their order, files left out; raises `Unclear`.

    Without a content type the form's first line has to be the boundary.
    """
    begin = 2 if body.startswith(_CRLF) else 0
    boundary = _boundary(content_type) if content_type else _first(body, begin)
    mark = b"--" + boundary
    if not body.startswith(mark + _CRLF, begin):
        raise Unclear
    end, found = _CRLF + mark, []
    at = begin + len(mark) + 2
    for _ in range(_MOST_PARTS):
        said, at = _head(body, at)
        name = _name(said)
        stop = body.find(end, at)
        if stop < 0 or body.startswith(mark, at):
            raise Unclear
        if name is not None:
            value = body[at:stop]
            _check_charset(said, value)
            found.append((name, value))
        at = stop + len(end) + 2
        if body.startswith(b"--", at - 2):
            if body[at:] not in {b"", _CRLF}:
                raise Unclear
            return found
        if not body.startswith(_CRLF, at - 2):
            break
    raise Unclear


def _boundary(content_type: bytes) -> bytes:
    match = _TYPE.fullmatch(content_type)
    if match is None or content_type.lower().count(b"boundary") != 1:
        raise Unclear
    for name, value in _PARAMETER.findall(match[1]):
        if name.lower() == b"boundary":
            bare = value.strip(b'"')
            if _BOUNDARY.fullmatch(bare):
                return bytes(bare)
    raise Unclear


def _first(body: bytes, begin: int) -> bytes:
    stop = body.find(_CRLF, begin, begin + 2 + _LONGEST_BOUNDARY + 2)
    line = body[begin:stop] if stop >= 0 else b""
    if not line.startswith(b"--") or not _BOUNDARY.fullmatch(line[2:]):
        raise Unclear
    return line[2:]


def _head(body: bytes, at: int) -> tuple[dict[bytes, bytes], int]:
    """Read the head of a part: its headers, and where its value begins."""
    said: dict[bytes, bytes] = {}
    for _ in range(_MOST_LINES + 1):
        stop = body.find(_CRLF, at, at + _LONGEST_LINE)
        if stop < 0:
            break
        line, at = body[at:stop], stop + 2
        if not line:
            return said, at
        match = _HEADER.fullmatch(line)
        name = b"" if match is None else match[1].lower()
        if match is None or name in said:
            break
        said[name] = match[2].strip()
    raise Unclear


def _name(said: dict[bytes, bytes]) -> str | None:
    """Return the name of a part, None for a file."""
    disposition = said.get(b"content-disposition", b"")
    match = _DISPOSITION.fullmatch(disposition)
    if match is None:
        raise Unclear
    given = [(name.lower(), value) for name, value in _PARAMETER.findall(match[1])]
    parameters = dict(given)
    if len(parameters) < len(given) or b"name" not in parameters:
        raise Unclear
    if len(_NAMED.findall(disposition)) != len(given):
        raise Unclear  # one within a file's name: some split at each semicolon
    if said.get(b"content-transfer-encoding", b"binary").lower() not in _AS_IT_IS:
        raise Unclear
    if len(given) > 1:
        _check_file(parameters)
        return None
    written = parameters[b"name"]
    if b"\\" in written:
        raise Unclear
    try:
        name: str = written.strip(b'"').decode()
    except UnicodeDecodeError:
        raise Unclear from None
    return name


def _check_file(parameters: dict[bytes, bytes]) -> None:
    """Raise `Unclear` where some would not see that a part is a file."""
    if not parameters.get(b"filename", b"").strip(b'" \t'):
        raise Unclear
    extended = parameters.get(b"filename*")
    if extended is not None and _EXTENDED.fullmatch(extended) is None:
        raise Unclear


def _check_charset(said: dict[bytes, bytes], value: bytes) -> None:
    """Raise `Unclear` where a value would say something else than in UTF-8."""
    charset = _CHARSET.search(said.get(b"content-type", b""))
    name = b"utf-8" if charset is None else charset[1].lower()
    if _CHARSETS.fullmatch(name) is None or not (name == b"utf-8" or value.isascii()):
        raise Unclear
