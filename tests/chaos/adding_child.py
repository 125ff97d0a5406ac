"""A program that adds a job for each line on its standard input and prints its id: ``adding_child.py DB``."""

from __future__ import annotations

import sys

import trio

from cronactors import Cron, open_store


async def main() -> None:
    async with open_store(sys.argv[1]) as store:
        for line in sys.stdin:  # no other task runs in this loop
            print(await store.add_job(line.strip(), "p" * 3_000, Cron("* * * * *")), flush=True)  # noqa: T201 - the test listens


if __name__ == "__main__":
    trio.run(main)
