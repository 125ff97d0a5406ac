"""When schedules fire. Pure: no module here reads a clock, and none imports trio."""
