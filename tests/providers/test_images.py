"""Images: by their size where it is seen, else the most there is."""

from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.providers.estimate import Prompt
from ratekeeper.providers.images import MOST, Size, image_tokens, size_of


def png(width: int, height: int) -> bytes:
    head = struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + head + bytes(40)


def jpeg(width: int, height: int, frame: int = 0xC0) -> bytes:
    begun = b"\xff\xd8\xff\xe0\x00\x10JFIF\0" + bytes(9)
    table = b"\xff\xc4\x00\x05abc"  # between the frames' numbers, and none
    size = struct.pack(">BBHBHH", 0xFF, frame, 17, 8, height, width)
    return begun + table + size + bytes(40)


def webp(chunk: bytes, body: bytes) -> bytes:
    return b"RIFF\x40\0\0\0WEBP" + chunk + b"\x20\0\0\0" + body + bytes(40)


FORMS = {
    "png": png(1000, 600),
    "jpeg": jpeg(1000, 600),
    "progressive jpeg": jpeg(1000, 600, 0xC2),
    "gif": b"GIF89a" + struct.pack("<HH", 1000, 600) + bytes(40),
    "webp": webp(b"VP8 ", bytes(6) + struct.pack("<HH", 1000, 600)),
    "lossless webp": webp(b"VP8L", b"\x2f" + struct.pack("<I", 999 | 599 << 14)),
    "extended webp": webp(b"VP8X", bytes(4) + b"\xe7\x03\0" + b"\x57\x02\0"),
}


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("form", FORMS)
def test_the_size_is_read_from_the_first_bytes(form: str) -> None:
    plain = encoded(FORMS[form])

    assert Size(1000, 600) == size_of(plain)
    assert Size(1000, 600) == size_of(f"data:image/any;base64,{plain}")


@pytest.mark.parametrize(
    "data",
    [
        "",
        "A",
        "not base64 at all: äöü",
        "abcde=fgh=",
        encoded(b"\x89PNG\r\n\x1a\n"),
        encoded(png(0, 600)),
        encoded(png(2**31, 600)),
        encoded(bytes(100)),
        encoded(b"\xff\xd8\xff\xe0\xff\xff" + bytes(100)),
        encoded(b"\xff\xd8" + bytes(100)),
        encoded(webp(b"ALPH", bytes(20))),
        "data:image/png,plain",
    ],
)
def test_what_shows_no_size_has_none(data: str) -> None:
    assert size_of(data) is None


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"GIF89a", b"RIFF"]),
)
def test_no_bytes_are_too_odd_to_look_at(data: bytes, begun: bytes) -> None:
    size = size_of(encoded(begun + data))

    assert size is None or min(size) > 0


@pytest.mark.parametrize(
    ("model", "family", "detail", "size", "tokens"),
    [
        ("claude-opus-4-8", "claude", None, (1000, 600), 36 * 22),
        ("claude-opus-4-8", "claude", None, (4000, 4000), 3930),
        ("claude-opus-4-5", "claude-3", None, (4000, 4000), 1568),
        ("claude-opus-4-8", "claude", "low", (280, 28), 10),
        ("gpt-4o", "o200k", None, (512, 512), 85 + 170),
        ("gpt-4o", "o200k", "high", (1024, 1024), 85 + 4 * 170),  # 768 by 768
        ("gpt-4o", "o200k", "high", (2048, 4096), 85 + 6 * 170),  # 768 by 1536
        ("gpt-4o", "o200k", "high", (9000, 10), 85 + 4 * 170),
        ("gpt-4o", "o200k", "low", (4000, 4000), 85),
        ("openai/gpt-4.1", "o200k", "auto", (600, 400), 85 + 2 * 170),
        ("gpt-4o-mini", "o200k", None, (512, 512), 2833 + 5667),
        ("gpt-4o-mini", "o200k", "low", (512, 512), 2833),
        ("gpt-5.5", "o200k", None, (320, 320), 120),
        ("gpt-6", "o200k", "high", (4000, 4000), 2940),
        ("gpt-6", "o200k", "original", (4000, 4000), 14_364),
        ("gemini-3-pro", "modern", None, (4000, 4000), 1101),
        ("gemini-2.5-flash", "modern", None, (384, 384), 258),
        ("models/gemini-2.0-flash", "modern", None, (960, 540), 6 * 258),
        ("gemini-1.5-pro", "modern", None, (385, 100), 2 * 258),  # of 256
        ("gemini-1.5-pro", "modern", None, (1980, 1380), 6 * 258),  # of 768
        ("gemini-2.5-pro", "modern", None, (9000, 9000), 16 * 258),
        ("gemini-20-pro", "modern", None, (100, 100), MOST),
        ("gpt-4.1-nano", "o200k", None, (100, 100), MOST),
        ("llama-4", "modern", None, (100, 100), MOST),
    ],
)
def test_an_image_comes_to_what_its_model_makes_of_it(
    model: str, family: str, detail: str | None, size: tuple[int, int], tokens: int
) -> None:
    assert tokens == image_tokens(encoded(png(*size)), detail, model, family)


@pytest.mark.parametrize(
    ("model", "family", "detail", "tokens"),
    [
        ("claude-opus-4-8", "claude", None, 3930),
        ("claude-opus-4-5", "claude-3", None, 1568),
        ("gpt-4o", "o200k", None, 85 + 8 * 170),
        ("gpt-4o-mini", "o200k", None, 2833 + 8 * 5667),
        ("gpt-5.5", "o200k", "high", 2940),
        ("gpt-5.5", "o200k", "original", 14_364),
        ("gpt-4o", "o200k", "original", 14_364),
        ("gemini-3-pro", "modern", None, 1101),
        ("gemini-2.5-flash", "modern", None, 16 * 258),
        ("", "modern", None, MOST),
    ],
)
def test_an_image_whose_size_is_not_seen_comes_to_the_most_there_is(
    model: str, family: str, detail: str | None, tokens: int
) -> None:
    assert tokens == image_tokens(None, detail, model, family)


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_no_size_comes_to_more_than_an_unknown_one(width: int, height: int) -> None:
    data = encoded(png(width, height))
    for model, family in (
        ("gpt-4o", "o200k"),
        ("gpt-4o-mini", "o200k"),
        ("gpt-6", "o200k"),
        ("claude-opus-4-8", "claude"),
        ("claude-3-opus", "claude-3"),
        ("gemini-2.5-pro", "modern"),
    ):
        most = image_tokens(None, None, model, family)
        assert 0 < image_tokens(data, None, model, family) <= most


def test_the_size_is_found_in_every_shape_of_a_part() -> None:
    data = encoded(png(280, 280))
    url = f"data:image/png;base64,{data}"
    shapes: tuple[dict[str, object], ...] = (
        {"type": "image", "source": {"type": "base64", "data": data}},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "input_image", "image_url": url},
        {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}},
        {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
        {"type": "image_url", "image_url": None},
        {"type": "image", "data": data},
    )
    found = []
    for part in shapes:
        prompt = Prompt(model="claude-opus-4-8")
        prompt.add([part])
        found.append(prompt.fixed)

    assert [100] * 3 + [3930] * 3 + [100] == found
