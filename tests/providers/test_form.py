"""Forms: read as any parser reads them, or not at all."""

from __future__ import annotations

import email.parser
import email.policy
import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratekeeper.providers.catalog import find_provider
from ratekeeper.providers.form import Unclear, fields

TYPE = b"multipart/form-data; boundary=B"
NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters='"\\\r\n\0', categories=["L", "N"])
    | st.sampled_from("[]_. "),
    min_size=1,
    max_size=20,
)
FILES = st.none() | st.sampled_from(["a.wav", "b;c.png", "ü.txt", "name=x.png"])
PARTS = st.lists(
    st.tuples(NAMES, FILES, st.binary(max_size=60).filter(lambda v: b"B" not in v)),
    min_size=1,
    max_size=6,
)


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    said = f'form-data; name="{name}"'
    if filename is not None:
        said += f'; filename="{filename}"'
    return b"--B\r\nContent-Disposition: %b\r\n\r\n%b\r\n" % (said.encode(), value)


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--B--\r\n"


@given(PARTS)
def test_a_form_says_what_was_put_into_it(
    said: list[tuple[str, str | None, bytes]],
) -> None:
    body = form(*(part(name, value, file) for name, file, value in said))
    put = [(name, value) for name, file, value in said if file is None]

    assert put == fields(body, TYPE)
    assert put == fields(b"\r\n" + body, b'Multipart/Form-Data;boundary="B"')
    assert put == fields(body.removesuffix(b"\r\n"))


@given(
    st.lists(
        st.tuples(
            st.text("abcxyz_[]", min_size=1, max_size=9),
            st.none() | st.just("a.bin"),
            st.text("abc -=;:\"\\'", max_size=40),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_it_reads_what_another_parser_reads(
    said: list[tuple[str, str | None, str]],
) -> None:
    body = form(*(part(name, value.encode(), file) for name, file, value in said))
    head = b"Content-Type: " + TYPE + b"\r\n\r\n"
    parser = email.parser.BytesParser(policy=email.policy.HTTP)
    read = []
    for one in parser.parsebytes(head + body).iter_parts():
        if one.get_filename() is None:
            name = one.get_param("name", header="content-disposition")
            read.append((name, one.get_payload(decode=True)))

    assert read == fields(body, TYPE)


PIECES = st.sampled_from(
    [
        b"--B",
        b"\r\n",
        b"--",
        b'content-disposition: form-data; name="model"',
        b"content-disposition: form-data; name=model",
        b"name=model\r\n",
        b"x",
        b"\n",
        b" ",
        b"B",
    ]
)


@given(st.lists(PIECES | st.binary(max_size=3), max_size=30).map(b"".join))
@example(b"")
@example(b"--B")
def test_whatever_comes_is_read_or_unclear(body: bytes) -> None:
    for kind in (TYPE, b""):
        try:
            found = fields(body, kind)
        except Unclear:
            continue

        assert all(value in body for _, value in found)


@given(st.lists(PIECES | st.just(part("n", b"3")), max_size=9).map(b"".join))
def test_how_many_pictures_are_asked_for_is_read_whatever_the_form(body: bytes) -> None:
    facts = find_provider("openai").read_request("POST", "/v1/images/edits", body)

    assert facts.choices in {1, 3}


MODEL = part("model", b"a")
HEAD = b"--B\r\ncontent-disposition: "


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--B",
        b"--B\r\n",
        b"--B--\r\n",
        MODEL,  # without its end
        b'name="model"\r\n\r\na\r\n' + form(part("model", b"b")),
        form(MODEL) + part("model", b"b"),
        form(MODEL) + b"x",
        MODEL + b"--BB--\r\n",
        MODEL + b"--B \r\n" + form(MODEL)[5:],
        form(HEAD + b'form-data; name="model"; name="x"\r\n\r\na\r\n'),
        form(HEAD + b'form-data; name="x"; filename="; name=model"\r\n\r\na\r\n'),
        form(HEAD + b'form-data; name="mo\\del"\r\n\r\na\r\n'),
        form(HEAD + b'form-data; name="\xff"\r\n\r\na\r\n'),
        form(HEAD + b'form-data; filename="x"\r\n\r\na\r\n'),
        form(HEAD + b'form-data; name="x"; filename=""\r\n\r\na\r\n'),
        form(HEAD + b'form-data; name="x"; filename=" "\r\n\r\na\r\n'),
        form(HEAD + b'form-data; name="x"; filename*=x\r\n\r\na\r\n'),
        form(HEAD + b"form-data; name=x; filename*=utf-8''x\r\n\r\na\r\n"),
        form(HEAD + b"form-data; name=x; filename=x; filename*=x\r\n\r\na\r\n"),
        form(HEAD + b"form-data; name=x; filename=x; filename*=utf-8''\r\n\r\na\r\n"),
        form(HEAD + b'attachment; name="model"\r\n\r\na\r\n'),
        form(HEAD + b"form-data; name*=utf-8''model\r\n\r\na\r\n"),
        form(HEAD + b'form-data;\r\n name="model"\r\n\r\na\r\n'),
        form(HEAD + b'form-data; name="x"\nx: name="model"\r\n\r\na\r\n'),
        form(HEAD + b'form-data; name="x"\r\n--B--\r\n\r\n'),
        form(b"--B\r\n\r\na\r\n"),
        form(b"--B\r\n" + b"".join(b"x%d: y\r\n" % i for i in range(9)) + MODEL[5:]),
        form(b"--B\r\nx: y\r\nX: z\r\n" + MODEL[5:]),
        form(b"--B\r\nx y\r\n" + MODEL[5:]),
        form(b"--B\r\nx: " + b"y" * 5000 + b"\r\n" + MODEL[5:]),
        form(b"--B\r\ncontent-transfer-encoding: base64\r\n" + MODEL[5:]),
        form(b"--B\r\ncontent-type: text/plain; charset=utf-7\r\n" + MODEL[5:]),
        form(b"--B\r\ncontent-type: text/plain; charset=utf-16\r\n" + MODEL[5:]),
        form(
            b"--B\r\ncontent-type: text/plain; charset=ISO-8859-1\r\n",
            part("n", b"\xe9")[5:],
        ),
        form(b'--B\r\ncontent-disposition: form-data; name="x"\r\n\r\n'),
        form(*[MODEL] * 1001),
    ],
)
def test_what_could_be_read_in_two_ways_is_not_read(body: bytes) -> None:
    with pytest.raises(Unclear):
        fields(body, TYPE)


@pytest.mark.parametrize(
    "kind",
    [
        b"multipart/form-data",
        b"multipart/related; boundary=B",
        b"multipart/form-data; boundary=B; boundary=C",
        b"multipart/form-data; boundary*=utf-8''B",
        b"multipart/form-data; boundary=",
        b'multipart/form-data; boundary=" "',
        b"multipart/form-data; boundary=" + b"B" * 71,
        b"multipart/form-data; x=boundary",
        b"multipart/form-data, text/plain; boundary=B",
    ],
)
def test_a_form_has_one_boundary(kind: bytes) -> None:
    with pytest.raises(Unclear):
        fields(form(MODEL), kind)


@pytest.mark.parametrize(
    "head",
    [
        b"content-type: text/plain; charset=UTF-8",
        b'content-type: text/plain; charset="utf-8"\r\nContent-Transfer-Encoding: 8bit',
        b"content-type: text/plain; charset=ISO-8859-1",
        b"content-type: text/plain; charset=windows-1252",
        b"content-length: 1\r\nx: y",
    ],
)
def test_what_clients_write_beside_a_value_is_no_matter(head: bytes) -> None:
    body = form(b"--B\r\n" + head + b"\r\n" + MODEL[5:])

    assert [("model", b"a")] == fields(body, TYPE)


@pytest.mark.parametrize(
    "more", [b"", b"; filename*=UTF-8''%C3%BC", b";filename*=\"utf-8''a\""]
)
def test_a_file_has_a_name_and_may_have_it_in_two_ways(more: bytes) -> None:
    file = HEAD + b'form-data; name="x"; filename="u"' + more + b"\r\n\r\n\xff\r\n"

    assert [("model", b"a")] == fields(form(file, MODEL), TYPE)


def test_a_field_of_another_charset_says_what_is_ascii_in_all() -> None:
    head = b"content-type: text/plain; charset=%b\r\n"
    value = "é".encode()
    body = form(b"--B\r\n" + head % b"utf-8" + part("n", value)[5:])

    assert [("n", value)] == fields(body, TYPE)


def pictures(n: str) -> int:
    """Return how many pictures a form asks for."""
    body = form(part("n", n.encode()))
    return (
        find_provider("openai").read_request("POST", "/v1/images/edits", body).choices
    )


@pytest.mark.parametrize(
    ("n", "count"),
    [("10", 10), (" 10 ", 10), ("1_0", 10), ("+10", 10), ("１０", 10), ("10.0", 10)],
)
def test_a_number_is_read_as_loosely_as_any_server_does(n: str, count: int) -> None:
    assert count == pictures(n)


@pytest.mark.parametrize(
    ("n", "count"),
    [("1e1", 1), ("10.5", 1), ("", 1), ("x", 1), ("-3", 1), ("9" * 300, 10_000)],
)
def test_what_is_no_number_is_none_and_each_is_bounded(n: str, count: int) -> None:
    assert count == pictures(n)


@pytest.mark.parametrize("said", [{"N": 10}, {"n": 1, "N": 10}, {"N": "1", "n": "10"}])
def test_pictures_are_counted_by_the_greater_of_two_numbers(
    said: dict[str, Any],
) -> None:
    facts = find_provider("openai").read_request(
        "POST", "/v1/images/generations", json.dumps(said).encode()
    )

    assert 10 == facts.choices


@pytest.mark.parametrize("first", [b"B", b"--" + b"B" * 71, b"--\xff", b"--B \n"])
def test_without_a_content_type_the_first_line_is_the_boundary(first: bytes) -> None:
    with pytest.raises(Unclear):
        fields(first + b"\r\n" + MODEL[5:] + b"--B--\r\n")


WIDE = b"a" * 70
SIZE = 4 * 1024 * 1024


@pytest.mark.parametrize(
    "body",
    [
        b"name=model\r\n" * (SIZE // 12),
        MODEL[:-5] + b"\r\n" * (SIZE // 2),
        MODEL[:-5] + b"\r\n--" * (SIZE // 4),
        MODEL * (SIZE // len(MODEL)),
        b"--B\r\n" + b"x" * SIZE,
        b"--B\r\ncontent-disposition: form-data; name=" + b'"\\' * (SIZE // 2),
        b"--B\r\ncontent-disposition: form-data" + b"; name=x" * (SIZE // 8),
    ],
)
def test_its_time_grows_with_the_form_alone(body: bytes) -> None:
    begin = time.process_time()
    for kind in (TYPE, b""):
        with pytest.raises(Unclear):
            fields(body, kind)

    assert 0.5 > time.process_time() - begin


def test_a_boundary_that_nearly_stands_everywhere_costs_no_more() -> None:
    body = b"--" + WIDE + b"\r\n" + MODEL[5:-5] + (b"\r\n--" + WIDE[:-1]) * (SIZE // 73)
    begin = time.process_time()
    with pytest.raises(Unclear):
        fields(body, b"multipart/form-data; boundary=" + WIDE)

    assert 0.5 > time.process_time() - begin
