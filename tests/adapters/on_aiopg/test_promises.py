"""aiopg's adapter under cancellations, dead connections and hooks, and its reserved connection."""

import pytest
from tests.adapters.on_aiopg.suite import AiopgSuite
from tests.adapters.on_aiopg.support import Driver

from pyscopg2.aiopg import AiopgAdapter, PoolManager


class TestPromises(AiopgSuite):
    @pytest.fixture
    def driver(self) -> Driver:
        return Driver(AiopgAdapter(), PoolManager, raw=lambda connection: connection)
