"""The actors: each owns its state and runs in a task of its own; they meet over memory channels only."""
