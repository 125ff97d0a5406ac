"""The lines of a run in the store: head and tail are kept, lines may be sent twice, and a cursor follows them."""

from __future__ import annotations

from contextlib import closing

import pytest
from hypothesis import given, settings, strategies as st

from cronactors.actors.output_buffer import OutputBuffer
from cronactors.errors import RunNotFound
from cronactors.ledger import run_output, runs
from cronactors.ledger.run_output import MAX_PIECE, NewOutput
from cronactors.model import Overlap
from cronactors.policy import Outcome
from cronactors.run_output import OUTPUT_HEAD, OUTPUT_TAIL, Piece, Progress, RunOutput, describe_gap, encode_lines
from cronactors.storage.rows import Claimed
from tests.ledger_world import FAILURE, KINDS, MINUTE, SUCCESS, World
from tests.storages import run

MANY_WIDTHS = "aß€😀"


def started(world: World) -> Claimed:
    world.add()
    world.pass_time(MINUTE)
    (claimed,) = world.claim()
    return claimed


def send(world: World, run_id: int, *pieces: Piece, progress: Progress | None = None) -> None:
    world.do(run_output.store_output, [NewOutput(run_id, pieces, progress)])


def read(world: World, run_id: int, since: int = 0) -> RunOutput:
    return world.do(run_output.read_output, str(run_id), since=since)


def sizes(world: World, run_id: int) -> list[int]:
    return [row.size for row in world.do(lambda storage: storage.output.pieces(run_id, since=0))]


def test_lines_are_appended(world: World) -> None:
    run_id = started(world).run.id
    assert read(world, run_id) == RunOutput(text="", cursor=0, left_out=0, finished=False)
    send(world, run_id, Piece(0, b"one\n"))
    send(world, run_id, Piece(4, "zw€i\n".encode()))
    assert read(world, run_id) == RunOutput(text="one\nzw€i\n", cursor=11, left_out=0, finished=False)
    assert read(world, run_id, 4).text == "zw€i\n"
    assert read(world, run_id, 11) == RunOutput(text="", cursor=11, left_out=0, finished=False)
    assert sizes(world, run_id) == [11], "small pieces become one row"


@pytest.mark.parametrize("start", [0, 2, 4])
def test_what_is_stored_already_is_skipped(world: World, start: int) -> None:
    run_id = started(world).run.id
    everything = b"one\ntwo\n"
    send(world, run_id, Piece(0, everything[:4]))
    send(world, run_id, Piece(start, everything[start:]))
    send(world, run_id, Piece(0, everything))
    assert read(world, run_id).text == "one\ntwo\n"


def test_a_row_holds_four_kibibytes(world: World) -> None:
    run_id = started(world).run.id
    content = "€".encode() * 3_000
    send(world, run_id, Piece(0, content))
    assert sizes(world, run_id) == [4095, 4095, 810]
    send(world, run_id, Piece(9_000, content))
    assert sizes(world, run_id) == [4095, 4095, 810 + 3285, 4095, 1620]
    assert read(world, run_id).text == "€" * 6_000


def test_a_gap_is_one_line(world: World) -> None:
    run_id = started(world).run.id
    send(world, run_id, Piece(0, b"begin"), Piece(1_005, b"end\n"))
    assert read(world, run_id).text == "begin\n… 1,000 bytes left out …\nend\n"
    assert read(world, run_id).left_out == 1_000
    assert read(world, run_id, 505).text == "… 500 bytes left out …\nend\n"
    assert read(world, run_id, 1_004).text == "… 1 byte left out …\nend\n"


def test_a_position_inside_of_a_character_shows_the_next_one(world: World) -> None:
    run_id = started(world).run.id
    send(world, run_id, Piece(0, "€x\n".encode()))
    assert [read(world, run_id, since).text for since in range(6)] == ["€x\n", "x\n", "x\n", "x\n", "\n", ""]


steps = st.lists(
    st.tuples(
        st.builds(
            lambda text, count: (text + "\n") * count, st.text(MANY_WIDTHS, min_size=1, max_size=30), st.integers(1, 3_000)
        ),
        st.sampled_from(["keep", "send", "lose the reply"]),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_head_and_tail_are_read_whole_and_by_a_cursor(steps_drawn: list[tuple[str, str]]) -> None:
    with closing(World(KINDS[0])) as world:
        run_id, buffer, everything = started(world).run.id, OutputBuffer(), ""
        followed, cursor = "", 0
        for text, what in steps_drawn:
            buffer.add(encode_lines(text))
            everything += text
            if what != "keep":
                pieces = buffer.pieces()
                send(world, run_id, *pieces)
                if what == "send":
                    buffer.stored(pieces[-1].end)
                part = read(world, run_id, cursor)
                followed, cursor = followed + part.text, part.cursor
        send(world, run_id, *buffer.pieces())
        part = read(world, run_id, cursor)
        followed += part.text
        output, content = read(world, run_id), everything.encode()
        assert part.cursor == output.cursor == len(content)
        assert sum(sizes(world, run_id)) == len(content) - output.left_out <= OUTPUT_HEAD + OUTPUT_TAIL + 2 * MAX_PIECE
        assert len(sizes(world, run_id)) <= (OUTPUT_HEAD + OUTPUT_TAIL) // (MAX_PIECE // 2) + 8
        if output.left_out:
            first, second = output.text.split(f"{describe_gap(output.left_out)}\n")
            assert len(second.encode()) >= OUTPUT_TAIL - 3
            assert everything.endswith(second)
            assert len(first.encode()) >= OUTPUT_HEAD - 3
            assert everything.startswith((first, first.removesuffix("\n")))
        else:
            assert output.text == everything
            assert followed == everything
        if len(content) <= OUTPUT_HEAD + OUTPUT_TAIL:
            assert not output.left_out


# Who may write, and what a finish leaves


def test_progress_is_there_until_the_finish(world: World) -> None:
    claimed = started(world)
    run_id = claimed.run.id
    assert world.do(run_output.read_progress, str(run_id)) is None
    send(world, run_id, progress=Progress(0.5, "half"))
    send(world, run_id, Piece(0, b"a line\n"))
    progress = world.do(run_output.read_progress, str(run_id))
    assert progress is not None
    assert (progress.fraction, progress.note) == (0.5, "half")
    world.do(run_output.store_last_output, [NewOutput(run_id, (Piece(7, b"the last\n"),), None)])
    assert world.do(run_output.read_progress, str(run_id)) is None
    assert read(world, run_id).text == "a line\nthe last\n"


@pytest.mark.parametrize("outcome", [FAILURE, SUCCESS], ids=["failed", "success"])
def test_nothing_is_added_to_a_run_that_has_finished(world: World, outcome: Outcome) -> None:
    claimed = started(world)
    run_id = claimed.run.id
    send(world, run_id, Piece(0, b"in time\n"), progress=Progress(0.1, ""))
    world.finish(claimed.run, outcome)
    send(world, run_id, Piece(8, b"too late\n"), progress=Progress(0.9, ""))
    output = read(world, run_id)
    assert (output.text, output.finished) == ("in time\n", True)
    if outcome is FAILURE:
        assert world.do(run_output.read_progress, str(run_id)) is None


def test_recovery_deletes_the_progress_and_keeps_the_lines(world: World) -> None:
    run_id = started(world).run.id
    send(world, run_id, Piece(0, b"before the crash\n"), progress=Progress(0.5, ""))
    recovered = world.crash()
    assert [run.id for run in recovered] == [run_id]
    assert world.do(run_output.read_progress, str(run_id)) is None
    assert read(world, run_id).text == "before the crash\n"


@pytest.mark.parametrize("run_id", ["999", "x", "0", "-1", "9" * 30])
def test_the_output_of_no_run(world: World, run_id: str) -> None:
    with pytest.raises(RunNotFound):
        world.do(run_output.read_output, run_id, since=0)
    with pytest.raises(RunNotFound):
        world.do(run_output.read_progress, run_id)


# The run before


def test_the_run_that_finished_last(world: World) -> None:
    job_id = world.add()
    found: list[int | None] = []
    for outcome in (SUCCESS, FAILURE, SUCCESS):
        world.pass_time(MINUTE)
        (claimed,) = world.claim()
        last = world.do(runs.last_finished_run, job_id, besides=claimed.run.id)
        found.append(None if last is None else last.id)
        world.finish(claimed.run, outcome)
    assert found[0] is None
    assert found[1:] == [1, 2]


def test_skipped_and_open_runs_and_itself_are_not_the_run_before(world: World) -> None:
    job_id = world.add()
    world.pass_time(MINUTE)
    early = world.claim_one()
    world.finish(early)
    rows = [run(job_id=job_id, scheduled_at=world.now + number, status="skipped", completed_at=world.now) for number in range(50)]
    world.do(lambda storage: storage.insert_runs(rows))
    late = world.request(job_id)
    (claimed,) = world.claim()
    assert claimed.run.id == late.id
    found = world.do(runs.last_finished_run, job_id, besides=late.id)
    assert found is not None
    assert found.id == early.id
    world.finish(claimed.run)
    assert world.do(runs.last_finished_run, job_id, besides=late.id) == found


def test_of_two_finished_runs_the_later_finish_counts(world: World) -> None:
    job_id = world.add(overlap=Overlap.ALLOW_ALL)
    world.pass_time(MINUTE)
    first = world.claim_one()
    world.pass_time(MINUTE)
    second = world.claim_one()
    world.finish(second)
    world.pass_time(1)
    world.finish(first)
    found = world.do(runs.last_finished_run, job_id, besides=0)
    assert found is not None
    assert found.id == first.id
