"""Each host's watch."""
