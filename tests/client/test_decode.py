"""Decoding a copy of a body: the same as the whole, in bounded pieces, never failing."""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import itertools
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.client import decode

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "identity": ("", bytes),
    "gzip": ("gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "deflate": ("deflate", _raw_deflate),
}
for name, module in (("br", "brotli"), ("zstd", "backports.zstd")):
    if importlib.util.find_spec(module.partition(".")[0]) is not None:
        PACKERS[name] = name, importlib.import_module(module).compress
ENCODINGS = ["", "gzip", "deflate", "br", "zstd"]


def unpack(encoding: str, parts: list[bytes]) -> list[bytes]:
    decoder = decode.decoder(encoding)
    assert decoder is not None
    return [piece for part in parts for piece in decoder(part)]


@pytest.mark.parametrize("packer", PACKERS)
@given(data=st.binary(max_size=2000), at=st.lists(st.integers(0, 2000), max_size=5))
def test_parts_decode_to_the_whole(packer: str, data: bytes, at: list[int]) -> None:
    encoding, pack = PACKERS[packer]
    packed = pack(data)
    cuts = [0, *sorted(min(cut, len(packed)) for cut in at), len(packed)]
    parts = [packed[a:b] for a, b in itertools.pairwise(cuts)]

    assert data == b"".join(unpack(encoding, parts))


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(parts=st.lists(st.binary(max_size=300), max_size=6))
def test_garbage_decodes_to_something_or_nothing(
    encoding: str, parts: list[bytes]
) -> None:
    readable = decode.decoder(encoding) is not None
    pieces = unpack(encoding, parts) if readable else []

    assert all(isinstance(piece, bytes) for piece in pieces)
    assert all(len(piece) <= 2 * MIB for piece in pieces)


@pytest.mark.parametrize("packer", [name for name in PACKERS if name != "identity"])
def test_a_bomb_goes_off_in_bounded_pieces(packer: str) -> None:
    encoding, pack = PACKERS[packer]
    pieces = unpack(encoding, [pack(bytes(20 * MIB))])

    assert 20 * MIB == sum(len(piece) for piece in pieces)
    assert max(len(piece) for piece in pieces) <= 2 * MIB


@pytest.mark.parametrize("encoding", ["compress", "rot13", "gzip, br"])
def test_what_nobody_can_read_has_no_decoder(encoding: str) -> None:
    assert decode.decoder(encoding) is None
    assert b"" == decode.decode_head(encoding, b"x")


@pytest.mark.parametrize("packer", PACKERS)
def test_a_head_decodes_as_far_as_it_goes(packer: str) -> None:
    encoding, pack = PACKERS[packer]

    assert b"hello" == decode.decode_head(encoding, pack(b"hello"))


@pytest.mark.parametrize("encoding", ["br", "zstd"])
def test_an_encoding_whose_library_is_missing_is_not_metered(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)

    assert decode.decoder(encoding) is None
