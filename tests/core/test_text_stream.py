"""From the bytes of tokens to text: however they are split, the same text, and never a stop string."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minerva._core import TextStream, sanitize_utf8

# Bytes that begin, continue and break every kind of UTF-8 character, and whole characters of each length.
TRICKY = st.lists(
    st.one_of(
        st.sampled_from([b"\x80", b"\xbf", b"\xc2", b"\xc0", b"\xe0", b"\xed", b"\xa0", b"\x9f", b"\xef\xbb", b"\xf0"]),
        st.sampled_from([b"\xf4", b"\x90", b"\xf5", b"\xff", "é".encode(), "東".encode(), "🦙".encode(), b"a", b"\0"]),
        st.binary(max_size=4),
    ),
    max_size=12,
).map(b"".join)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes, cut at each place (modulo their length)."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


def run(parts: list[bytes], stops: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    """What each push showed, and the flush; whether a stop string came."""
    stream = TextStream(stops)
    shown = []
    for part in parts:
        text, stopped = stream.push(part)
        shown.append(text)
        if stopped:
            return shown, True
    return [*shown, stream.flush()], False


@given(TRICKY, st.lists(st.integers(0, 60), max_size=8))
def test_any_bytes_split_anywhere_give_the_text_of_the_whole(data: bytes, cuts: list[int]) -> None:
    shown, _ = run(pieces(data, cuts))
    assert "".join(shown) == sanitize_utf8(data)


@given(TRICKY)
def test_the_text_is_the_one_python_decodes(data: bytes) -> None:
    assert sanitize_utf8(data) == data.decode("utf-8", "replace")


@given(st.text(max_size=30), st.lists(st.integers(0, 60), max_size=8))
def test_well_formed_text_is_never_changed_and_no_character_is_held_once_whole(text: str, cuts: list[int]) -> None:
    stream, fed = TextStream(), b""
    shown = ""
    for part in pieces(text.encode("utf-8"), cuts):
        fed += part
        shown += stream.push(part)[0]
        assert shown == fed.decode("utf-8", "ignore"), "all whole characters, and nothing else"
    assert shown + stream.flush() == text


LETTERS = st.text("ab<é", max_size=20)
STOPS = st.lists(st.text("ab<é", min_size=1, max_size=4), min_size=1, max_size=3).map(tuple)


def before_first_stop(text: str, stops: tuple[str, ...]) -> str:
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


@given(LETTERS, STOPS, st.lists(st.integers(0, 60), max_size=12))
def test_neither_a_stop_string_nor_what_follows_it_is_shown(text: str, stops: tuple[str, ...], cuts: list[int]) -> None:
    shown, stopped = run(pieces(text.encode(), cuts), stops)
    seen = "".join(shown)
    assert stopped == any(stop in text for stop in stops)
    assert not any(stop in seen for stop in stops)
    if not stopped:
        assert seen == text
    else:
        assert text.startswith(seen)


@given(LETTERS, STOPS)
def test_byte_by_byte_the_text_ends_where_the_first_complete_stop_string_begins(
    text: str, stops: tuple[str, ...]
) -> None:
    shown, stopped = run([bytes([byte]) for byte in text.encode()], stops)
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    # Of those that are complete at one character the one that began first.
    expected = text[: min(start for end, start in ends if end == min(ends)[0])] if ends else text
    assert ("".join(shown), stopped) == (expected, bool(ends))


@given(LETTERS, st.text("ab<é", min_size=1, max_size=4), st.lists(st.integers(0, 60), max_size=12))
def test_with_one_stop_string_the_split_changes_nothing(text: str, stop: str, cuts: list[int]) -> None:
    shown, _ = run(pieces(text.encode(), cuts), (stop,))
    assert "".join(shown) == before_first_stop(text, (stop,))


def test_text_is_shown_as_soon_as_it_cannot_become_a_stop_string() -> None:
    stream = TextStream(("</end>",))
    assert stream.push(b"a <") == ("a ", False)
    assert stream.push(b"/en") == ("", False)
    assert stream.push(b"try>") == ("</entry>", False)
    assert stream.push(b"</en") == ("", False)
    assert stream.flush() == "</en"


def test_a_character_is_shown_with_its_last_byte() -> None:
    stream = TextStream()
    shown = [stream.push(bytes([byte]))[0] for byte in "é東🦙".encode()]
    assert shown == ["", "é", "", "", "東", "", "", "", "🦙"]


@pytest.mark.parametrize("data", [b"\xf0\x9f\xa6", b"\xe6\x9d", b"\xc3"])
def test_a_character_that_never_ends_is_one_replacement_at_the_end(data: bytes) -> None:
    stream = TextStream()
    assert stream.push(b"x" + data) == ("x", False)
    assert stream.flush() == "�"
