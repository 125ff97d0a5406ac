"""The executor `shell`: runs a job's prompt as a command."""
