"""Where jobs and runs are stored: their rows, the protocol of a storage, and the storage in SQLite."""
