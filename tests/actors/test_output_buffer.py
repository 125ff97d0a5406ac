"""The buffer of lines, and lines as bytes: nothing is cut inside of a character, and memory is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from cronactors.actors.output_buffer import OutputBuffer
from cronactors.run_output import OUTPUT_HEAD, OUTPUT_TAIL, Piece, cut, encode_lines, whole_characters

MANY_WIDTHS = "aß€😀"  # one to four bytes
lines = st.tuples(
    st.text(MANY_WIDTHS, min_size=1, max_size=20), st.integers(1, 20_000)
)  # a text, and how often it is in the line


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("", "\n"),
        ("\n", "\n"),
        ("a", "a\n"),
        ("a\n", "a\n"),
        ("a\n\n", "a\n\n"),
        ("a\r\nb\rc", "a\nb\nc\n"),
        ("a\r", "a\n"),
        ("a\0b\ud800\udfffc", "a\ufffdb\ufffd\ufffdc\n"),
        ("a\0b", "a\ufffdb\n"),
        ("a\x85b\u2028c\x0bd", "a\x85b\u2028c\x0bd\n"),
    ],
)
def test_text_becomes_lines(text: str, content: str) -> None:
    assert encode_lines(text) == content.encode()


@given(st.text(MANY_WIDTHS), st.integers(0, 50))
def test_a_cut_is_never_inside_of_a_character(text: str, most: int) -> None:
    content = text.encode()
    size = cut(content, most)
    assert most - 3 <= size <= most or size == len(content)
    assert text.startswith(content[:size].decode())


@given(st.text(MANY_WIDTHS), st.data())
def test_bytes_from_the_middle_become_whole_characters(text: str, data: st.DataObject) -> None:
    content = text.encode()
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, len(content)))
    piece = whole_characters(start, content[start:end])
    assert piece.content == content[piece.start : piece.end]
    piece.content.decode()
    if piece.content:
        assert piece.start - start <= 3
        assert end - piece.end <= 3


@settings(max_examples=100)
@given(st.lists(st.one_of(lines, st.none())))
def test_it_keeps_what_the_head_wants_and_the_last_bytes(steps: list[tuple[str, int] | None]) -> None:
    buffer, everything, stored = OutputBuffer(), b"", 0
    for step in steps:
        if step is not None:
            line = encode_lines(step[0] * step[1])
            buffer.add(line)
            everything += line
        elif pieces := buffer.pieces():  # the store has them
            stored = pieces[-1].end
            assert stored == len(everything)
            buffer.stored(stored)
            assert buffer.pieces() == ()
        pieces = buffer.pieces()
        assert sum(len(piece.content) for piece in pieces) <= OUTPUT_HEAD + OUTPUT_TAIL
        for piece in pieces:
            assert piece.content == everything[piece.start : piece.end]
            piece.content.decode()
        wanted = (
            (stored, min(OUTPUT_HEAD, len(everything)) - 3),
            (max(stored, len(everything) - OUTPUT_TAIL + 3), len(everything)),
        )
        for start, end in wanted:
            assert start >= end or any(piece.start <= start and end <= piece.end for piece in pieces)
    assert buffer.end == len(everything)


def test_lines_that_arrive_while_others_are_being_stored_stay() -> None:
    buffer = OutputBuffer()
    buffer.add(b"one\n")
    (sent,) = buffer.pieces()
    buffer.add(b"two\n")
    buffer.stored(sent.end)
    assert buffer.pieces() == (Piece(4, b"two\n"),)


def test_a_flood_while_others_are_being_stored_leaves_a_gap() -> None:
    buffer = OutputBuffer()
    buffer.add(b"a" * OUTPUT_HEAD + b"b" * 10)
    (sent,) = buffer.pieces()
    buffer.add(b"c" * 3 * OUTPUT_TAIL)
    buffer.stored(sent.end)
    assert buffer.pieces() == (Piece(OUTPUT_HEAD + 10 + 2 * OUTPUT_TAIL, b"c" * OUTPUT_TAIL),)


def test_a_hundred_megabytes_fit_into_its_memory() -> None:
    buffer = OutputBuffer()
    line = encode_lines("x" * 999_999)
    for _ in range(100):
        buffer.add(line)
    head, tail = buffer.pieces()
    assert (head.start, len(head.content)) == (0, OUTPUT_HEAD)
    assert (tail.end, len(tail.content)) == (100_000_000, OUTPUT_TAIL)
