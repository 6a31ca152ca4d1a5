"""What the core asks of aiopg."""

import aiopg
import psycopg2
from aiopg.connection import Connection
from aiopg.pool import Pool

from pyscopg2.core.adapter.aiopg.pools import AiopgPools


class AiopgAdapter(AiopgPools[Pool, Connection]):
    """`pyscopg2.core.adapter.Adapter` over aiopg's public API."""

    def __init__(self) -> None:
        super().__init__("aiopg", aiopg, psycopg2)
