"""The verbs of `CronStore`, by what they are about. They run in the caller's task."""
