"""Hypothesis strategies that damage a file: what every reader must survive."""

from __future__ import annotations

from hypothesis import strategies as st

_OTHER_KINDS = (
    b"",
    b"\x00" * 512,
    b"this is a text file, not an image\n" * 20,
    b"\x89PNG\r\n\x1a\n" + b"\x00" * 64,
    b"\x1f\x8b\x08\x00" + b"\x55" * 64,  # gzip's magic, then nonsense
    b"PK\x03\x04" + b"\x00" * 64,
    b"<!DOCTYPE html><html>404 Not Found</html>",
)


@st.composite
def damaged(draw: st.DrawFn, data: bytes, head: int | None = None) -> bytes:
    """``data`` cut off, with flipped bits, with a hole of zeros, or a file of another kind in its place.

    Args:
        data: the sound file.
        head: damage only the first ``head`` bytes (where the headers are); ``None``: anywhere.
    """
    kind = draw(st.sampled_from(["truncated", "flipped", "hole", "another"]))
    end = len(data) if head is None else min(head, len(data))
    if kind == "another":
        return draw(st.sampled_from(_OTHER_KINDS))
    if kind == "truncated":
        return data[: draw(st.integers(0, max(end - 1, 0)))]
    spoiled = bytearray(data)
    if kind == "hole":
        start = draw(st.integers(0, end - 1))
        length = draw(st.integers(1, 64))
        spoiled[start : start + length] = bytes(min(length, len(data) - start))
    else:
        for position in draw(st.lists(st.integers(0, end - 1), min_size=1, max_size=8)):
            spoiled[position] ^= 1 << draw(st.integers(0, 7))
    return bytes(spoiled)
