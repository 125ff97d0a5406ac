"""The storage in a PostgreSQL schema."""
