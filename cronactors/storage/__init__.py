"""Where jobs and runs are kept: the rows, what any storage must do, and the storage in SQLite."""
