"""One fake network, for the tests of the fake driver."""

from typing import Any, Self

from pyscopg2.core.dsn import Target, parse_dsn
from pyscopg2.testing.fake import FakeNetwork, FakePool, FakeQuirks, PooledFakeAdapter

PLAIN = "SHOW transaction_read_only"


class Bench:
    """One network, one adapter, and shortcuts; leaving it asserts that nothing is left."""

    def __init__(self, replicas: int = 1, **quirks: Any) -> None:
        self.network = FakeNetwork.cluster(replicas)
        self.adapter = PooledFakeAdapter(self.network, FakeQuirks(**quirks))
        self.server = self.network.master
        self.targets: dict[str, Target] = {
            target.address: target for target in parse_dsn(self.network.dsn)
        }

    async def pool(self, address: str = "db1:5432", **options: Any) -> FakePool:
        return await self.adapter.create_pool(self.targets[address], **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, exc_type: object, *_: object) -> None:
        for pool in self.network.pools:
            await self.adapter.terminate_pool(pool)
        if exc_type is None:
            self.network.assert_nothing_left()
