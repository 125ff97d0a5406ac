"""When schedules fire. Pure: no module here reads a clock or imports trio."""
