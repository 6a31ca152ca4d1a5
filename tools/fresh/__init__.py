"""Reads with bounds, on real servers, against rows."""
