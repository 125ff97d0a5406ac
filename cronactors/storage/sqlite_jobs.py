"""The verbs of the storage in a SQLite file that are about jobs; `protocol` documents them."""

from __future__ import annotations

from collections.abc import Sequence

from cronactors.instants import LATEST, Millis
from cronactors.storage import statements as sql
from cronactors.storage.execution import Execution
from cronactors.storage.rows import SPEC, JobRow, JobState, OverdueMoment
from cronactors.storage.values import integer
from cronactors.tags import NO_TAGS, tags_to_find

_job_state = sql.UPDATE_JOB_STATE.row_maker()


class SqliteJobs(Execution):
    """Jobs: a row in jobs and one in job_specs each."""

    def insert_jobs(self, rows: Sequence[JobRow]) -> None:
        """Add jobs: a row in jobs and one in job_specs each."""
        numbers = self._new_numbers(sql.LAST_JOB, len(rows))
        self._write(sql.INSERT_JOB, ((number, *row[:SPEC]) for number, row in zip(numbers, rows, strict=True)))
        self._write(sql.INSERT_SPEC, ((number, *row[SPEC:]) for number, row in zip(numbers, rows, strict=True)))
        self._insert_tags(rows)

    def update_jobs(self, rows: Sequence[JobRow]) -> None:
        """Write both rows of each job."""
        self._write(sql.UPDATE_JOB, ((*row[:SPEC], row.id) for row in rows))
        self._write(sql.UPDATE_SPEC, ((*row[SPEC:], row.id) for row in rows))
        self._write(sql.DELETE_TAGS, ((row.id,) for row in rows))
        self._insert_tags(rows)

    def _insert_tags(self, rows: Sequence[JobRow]) -> None:
        """Add jobs to the index of tags; of two rows of one job the last counts."""
        if any(row.tags != NO_TAGS for row in rows):
            last = {row.id: row.tags for row in rows}
            self._write(sql.INSERT_TAG, ((tag, job_id) for job_id, tags in last.items() for tag in tags_to_find(tags)))

    def update_job_states(self, states: Sequence[JobState]) -> None:
        """Write the state of jobs."""
        self._write(sql.UPDATE_JOB_STATE, map(_job_state, states))

    def set_rules(self, ids: Sequence[str], *, rules: str) -> None:
        """Write the release of the rules of jobs."""
        self._write(sql.SET_RULES, ((rules, job_id) for job_id in ids))

    def delete_jobs(self, ids: Sequence[str]) -> None:
        """Delete jobs; SQLite deletes their job_specs and job_tags with them."""
        self._write(sql.DELETE_JOB, ((job_id,) for job_id in ids))

    def jobs(self, ids: Sequence[str]) -> dict[str, JobRow]:
        """Return jobs by id."""
        return {job.id: job for job in map(JobRow._make, self._read(sql.JOBS, [(job_id,) for job_id in ids]))}

    read_jobs = jobs

    def idle_jobs(self, ids: Sequence[str]) -> dict[str, JobRow]:
        """Return jobs without an open run, by id."""
        return {job.id: job for job in map(JobRow._make, self._read(sql.IDLE_JOBS, [(job_id,) for job_id in ids]))}

    def jobs_named(self, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], JobRow]:
        """Return jobs by user and name."""
        ids = [str(job_id) for (job_id,) in self._read(sql.IDS_NAMED, names) if job_id is not None]
        return {(job.user_id, job.name): job for job in self.jobs(ids).values()}

    def job_names(self, *, after: tuple[str, str], limit: int) -> list[tuple[str, str]]:
        """Return a page of names."""
        return [(str(user_id), str(name)) for user_id, name in self._fetch(sql.JOB_NAMES, (*after, limit))]

    def jobs_of_origin(self, origin: str) -> list[JobRow]:
        """Return the jobs of an origin."""
        return list(map(JobRow._make, self._fetch(sql.JOBS_OF_ORIGIN, (origin,))))

    def list_jobs(self, *, after: int, limit: int, user_id: str | None) -> list[tuple[int, JobRow]]:
        """Return a page of jobs."""
        if user_id is None:
            rows = self._fetch(sql.LIST_JOBS, (after, limit))
        else:
            rows = self._fetch(sql.LIST_JOBS_OF_USER, (after, user_id, limit))
        return [(integer(number), JobRow._make(job)) for number, *job in rows]

    def jobs_tagged(self, tag: str, *, after: int, limit: int) -> list[tuple[int, JobRow]]:
        """Return a page of the jobs that have a tag."""
        rows = self._fetch(sql.LIST_JOBS_TAGGED, (tag, after, limit))
        return [(integer(number), JobRow._make(job)) for number, *job in rows]

    def overdue(self, *, until: Millis, after: OverdueMoment | None, limit: int) -> list[OverdueMoment]:
        """Return a page of moments that are due."""
        at, number = (-LATEST, 0) if after is None else after[:2]
        rows = self._fetch(sql.OVERDUE, {"at": at, "number": number, "until": until, "limit": limit})
        return list(map(OverdueMoment._make, rows))

    def latest_added_at(self, *, among: int) -> Millis | None:
        """Return the latest time in the newest jobs and runs."""
        times = [integer(at) for (at,) in self._fetch(sql.LATEST_ADDED_AT, {"among": among}) if at is not None]
        return max(times, default=None)
