"""Blocks that are tried again where that may be done: `BasePoolManager.attempts`."""
