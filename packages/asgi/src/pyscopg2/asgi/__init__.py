"""pyscopg2 in ASGI applications: reads that see what their client has written before."""

from pyscopg2.asgi.counts import Counts
from pyscopg2.asgi.middleware import CausalMiddleware

__all__ = ("CausalMiddleware", "Counts")
