"""How many runs may be running over all schedulers, when they were started with different numbers."""

from __future__ import annotations

import pytest

from cronactors.ledger.leases import renew_leases
from cronactors.ledger.owners import sign_off
from cronactors.ledger.totals import SEEN_WITHIN, note_total, total_of_all
from tests.ledger_world import MINUTE, World, process


def with_total(world: World, name: str, total: int | None) -> int:
    owner = world.register(process(name))
    world.do(note_total, owner, total)
    return owner


def test_the_smallest_total_of_the_living_counts(world):
    five, two = with_total(world, "there", 5), with_total(world, "elsewhere", 2)
    for _ in range(9):
        world.add()
    world.pass_time(MINUTE)
    world.do(renew_leases, [five, two])
    assert len(world.claim(owner=five, total=5)) == 2
    assert world.claim(owner=two, total=2) == []
    assert world.do(total_of_all, 1) == 1


def test_a_total_counts_as_long_as_its_owner_was_seen_lately(world):
    with_total(world, "there", 2)
    world.pass_time(SEEN_WITHIN - 1)
    assert world.do(total_of_all, 5) == 2
    world.pass_time(1)
    assert world.do(total_of_all, 5) == 5


def test_the_total_of_an_owner_that_has_closed_does_not_count(world):
    two = with_total(world, "there", 2)
    world.do(sign_off, two)
    assert world.do(total_of_all, 5) == 5


def test_totals_of_owners_that_are_gone_are_forgotten(world):
    world.do(sign_off, with_total(world, "there", 2))
    with_total(world, "elsewhere", None)
    assert world.do(lambda storage: storage.meta("totals")) is None


@pytest.mark.parametrize("damaged", ["", "[]", "7", '{"a": 1}', '{"1": "x"}', '{"1": -3}', '{"1": 1e999}', "[" * 100_000])
def test_damaged_totals_do_not_count(world, damaged):
    world.do(lambda storage: storage.set_meta("totals", damaged))
    assert world.do(total_of_all, 5) == 5
