"""pyscopg2 in ASGI applications: reads that see what their client has written before, health
endpoints, and a page that shows a manager while it works."""

from pyscopg2.asgi.counts import Counts
from pyscopg2.asgi.live import Live
from pyscopg2.asgi.middleware import CausalMiddleware
from pyscopg2.asgi.ready import Ready
from pyscopg2.asgi.status_page import StatusPage

__all__ = ("CausalMiddleware", "Counts", "Live", "Ready", "StatusPage")
