"""Clocks, timers, and work that nobody waits for."""
