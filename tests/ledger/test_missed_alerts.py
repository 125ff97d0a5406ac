"""Alerts of moments that were missed because no scheduler was running."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cronactors.instants import to_millis
from cronactors.ledger import cancel_other
from cronactors.ledger.owners import running_since, sign_off
from cronactors.model import Coalesce, Misfire, Overlap
from tests.alert_world import alerted, alerts, listen, stop
from tests.ledger_world import DAY, HOUR, HOURLY, MINUTE, T0, process


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.ALLOW_ALL, Overlap.CANCEL_OTHER])
def test_moments_that_were_merged_because_nothing_was_running_are_said_once(world, overlap):
    world.add(HOURLY, overlap=overlap)
    stop(world, down=5 * HOUR + MINUTE)
    run = world.claim_one()
    assert run.coalesced == 5
    assert alerted(world) == [("missed", 5)]
    (alert,) = alerts(world)
    assert to_millis(alert.since) == T0 + HOUR
    assert "from 2026-03-02T01:00:00Z to 2026-03-02T05:00:00Z, and 5 moments were merged" in alert.text
    world.finish(run)
    world.pass_time(HOUR)
    world.finish(world.claim_one())
    assert alerted(world) == [("missed", 5)]
    stop(world, down=2 * HOUR)
    world.claim_one()
    assert alerted(world) == [("missed", 5), ("missed", 2)]


def test_one_moment_that_is_only_late_is_not_missed(world):
    world.add(HOURLY)
    stop(world, down=HOUR + 30 * MINUTE)
    assert world.claim_one().coalesced == 1
    assert alerted(world) == []


def test_moments_that_the_window_skips_are_said_with_their_number(world):
    world.add(HOURLY, misfire=Misfire(window=timedelta(minutes=30)))
    stop(world, down=3 * HOUR + 45 * MINUTE)
    assert world.claim() == []
    assert alerted(world) == [("missed", 3)]
    assert alerts(world)[0].text.endswith("3 moments were skipped")


def test_moments_that_each_have_their_run_are_not_missed_and_those_beyond_the_limit_are(world):
    world.add(HOURLY, misfire=Misfire(coalesce=Coalesce.ALL, max_runs=3), overlap=Overlap.ALLOW_ALL)
    world.add(HOURLY, misfire=Misfire(coalesce=Coalesce.ALL), overlap=Overlap.ALLOW_ALL)
    stop(world, down=5 * HOUR)
    world.claim(limit=50)
    assert alerted(world) == [("missed", 2)]


def test_moments_that_were_merged_while_a_scheduler_was_running_are_not_missed(world):
    world.add(HOURLY)
    listen(world)
    world.pass_time(5 * HOUR)  # all slots are taken
    assert world.claim_one().coalesced == 5
    assert alerted(world) == []


def test_only_the_moments_before_the_start_are_missed(world):
    world.add(HOURLY)
    stop(world, down=2 * HOUR + 30 * MINUTE)
    world.pass_time(2 * HOUR)  # all slots are taken
    assert world.claim_one().coalesced == 4
    assert alerted(world) == [("missed", 2)]
    assert "to 2026-03-02T02:00:00Z" in alerts(world)[0].text


def test_moments_that_a_run_overlapped_after_a_crash_are_missed_only_before_the_start(world):
    world.add(HOURLY, overlap=Overlap.BUFFER_ALL)
    world.pass_time(HOUR)
    world.claim_one()
    world.pass_time(3 * HOUR + MINUTE)
    world.crash()
    listen(world)
    retry = world.claim_one()
    assert alerted(world) == []
    world.pass_time(2 * HOUR)
    world.finish(retry)
    assert alerted(world) == [("missed", 3)]


def test_another_scheduler_that_is_running_leaves_no_gap(world):
    world.register(process("there"))
    world.add(HOURLY)
    world.do(sign_off, world.owner)
    world.pass_time(MINUTE)  # less than a lease and a heartbeat ago
    since = world.do(running_since)
    world.register(process("third"))
    assert world.do(running_since) == since == T0


def test_a_scheduler_that_was_killed_leaves_a_gap(world):
    world.pass_time(HOUR)
    world.crash()
    assert world.do(running_since) == T0 + HOUR
    world.register(process("there"))
    world.pass_time(HOUR)
    world.do(sign_off, world.owner)
    world.owner = world.register(process("container"))  # the heartbeats of the other one are an hour old
    assert world.do(running_since) == T0 + 2 * HOUR


@pytest.mark.parametrize("damaged", ["", "{", "[]", '"x"', None, "1e999"])
def test_a_start_that_cannot_be_read_says_nothing(world, damaged):
    world.add(HOURLY)
    stop(world, down=5 * HOUR)
    world.do(lambda storage: storage.set_meta("running_since", damaged))
    assert world.claim_one().coalesced == 5
    assert alerted(world) == []


def test_a_clock_that_was_set_back_to_before_the_start_says_nothing(world):
    world.pass_time(DAY)
    world.crash()
    listen(world)
    world.add(HOURLY)
    world.set_back(DAY)
    world.pass_time(5 * HOUR)
    world.claim(limit=5)
    assert alerted(world) == []


def test_moments_that_replace_an_open_run_are_missed_too(world):
    world.add(HOURLY, overlap=Overlap.CANCEL_OTHER)
    world.pass_time(HOUR)
    world.claim_one()
    world.pass_time(3 * HOUR + MINUTE)
    world.crash()
    listen(world)
    assert world.claim_one().attempt == 2
    assert world.do(cancel_other.cancel_overlapped)
    assert alerted(world) == [("missed", 3)]
