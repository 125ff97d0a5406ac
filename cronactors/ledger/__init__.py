"""The decisions: what starts, what an end leads to, what becomes of a job. Once, on any `Storage`, inside one transaction.

`claim` lets due work begin; `close` ends runs and draws all consequences; `recovery` takes back what dead owners left; `jobs` adds,
edits, pauses and removes; `runs` asks for runs, cancels and finishes them, and starts those of own loops; `views` shows rows as the
values that users see.
"""
