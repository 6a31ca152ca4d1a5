"""What one process writes and another one reads, over HTTP."""
