"""The decisions, made once, on any `Storage`, inside one transaction, on the storage thread.

`claim` starts due moments and pending runs, `finish` finishes runs and stores what follows, `recovery` finishes the runs of dead owners.
`jobs` and `upsert` add, edit, pause and remove jobs; `runs` requests and cancels runs; `own_loop` is for users who claim and finish by
themselves. `views` makes the values that users see. `after_run`, `due_moments` and `open_runs` decide without the storage, from rows and
the time.
"""
