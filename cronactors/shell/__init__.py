"""The executor ``shell``, which runs the prompt of a job as a command."""
