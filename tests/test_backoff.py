"""The pauses between tries."""

from __future__ import annotations

from itertools import islice

import pytest

from cronactors.backoff import backoff


@pytest.mark.parametrize(
    ("first", "longest", "pauses"),
    [
        (0.1, 1.0, [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]),
        (1, 8, [1, 2, 4, 8, 8, 8]),
        (5, 2, [2, 2, 2, 2, 2, 2]),
        (0.5, 0.5, [0.5] * 6),
    ],
)
def test_each_pause_is_twice_the_one_before_up_to_the_longest(first, longest, pauses):
    assert list(islice(backoff(first, longest), 6)) == pauses


def test_pauses_never_end():
    pauses = backoff(0.001, 60)
    assert next(islice(pauses, 10_000, None)) == 60
