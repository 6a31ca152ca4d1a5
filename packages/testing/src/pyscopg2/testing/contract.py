"""What every adapter must do, as tests: subclass `AdapterContract` with one fixture.

::

    class TestMyAdapter(AdapterContract[MyPool, MyConnection]):
        @pytest.fixture
        def subject(self) -> Subject[MyPool, MyConnection]:
            return Subject(
                MyAdapter(), execute=execute, sizes=sizes, commits=False, transactions=transactions
            )

The tests run against a real PostgreSQL server (`LocalCluster`), each in an event loop of its own.
They are the executable half of `pyscopg2.core.adapter.Adapter`: that says what each verb promises,
and these tests show what goes wrong where it does not hold. They ask no more than the core needs:
where a driver may take its time, they terminate the connection or let the server go on, as the
core and life do.
"""

from collections.abc import Iterator
from typing import Generic

import pytest

from pyscopg2.core.adapter import ConnT, PoolT
from pyscopg2.testing.bench import TABLES, Bench, Subject, told_gaps
from pyscopg2.testing.cluster import LocalCluster
from pyscopg2.testing.contracts.adapter.acquire_contract import AcquireContract
from pyscopg2.testing.contracts.adapter.block_contract import BlockContract
from pyscopg2.testing.contracts.adapter.cancellation_contract import CancellationContract
from pyscopg2.testing.contracts.adapter.hook_contract import HookContract
from pyscopg2.testing.contracts.adapter.pool_contract import PoolContract
from pyscopg2.testing.contracts.adapter.pool_end_contract import PoolEndContract
from pyscopg2.testing.contracts.adapter.query_contract import QueryContract
from pyscopg2.testing.contracts.adapter.release_contract import ReleaseContract
from pyscopg2.testing.contracts.adapter.request_contract import RequestContract
from pyscopg2.testing.contracts.adapter.reserved_contract import ReservedContract
from pyscopg2.testing.contracts.adapter.transaction_contract import TransactionContract

__all__ = ("AdapterContract", "AdapterFixtures", "Subject")


class AdapterFixtures(Generic[PoolT, ConnT]):
    """What the parts of the contract need, for a class that has some of them only: the fixture
    `subject` is its own. Such a class is a second one, whose adapter is the same."""

    @pytest.fixture(scope="class")
    @classmethod
    def contract_cluster(cls) -> Iterator[LocalCluster]:
        with LocalCluster(replicas=0) as cluster:
            cluster.psql(cluster.primary, TABLES)
            yield cluster

    @pytest.fixture(autouse=True)
    def declared_gaps(self, subject: Subject[PoolT, ConnT], request: pytest.FixtureRequest) -> None:
        """What the run tells at its end."""
        request.node.user_properties += told_gaps(self, subject)

    @pytest.fixture
    def bench(
        self, subject: Subject[PoolT, ConnT], contract_cluster: LocalCluster
    ) -> Iterator["Bench[PoolT, ConnT]"]:
        bench = Bench(subject, contract_cluster)
        yield bench
        bench.tidy()


class AdapterContract(
    PoolContract[PoolT, ConnT],
    PoolEndContract[PoolT, ConnT],
    AcquireContract[PoolT, ConnT],
    ReleaseContract[PoolT, ConnT],
    QueryContract[PoolT, ConnT],
    BlockContract[PoolT, ConnT],
    TransactionContract[PoolT, ConnT],
    RequestContract[PoolT, ConnT],
    CancellationContract[PoolT, ConnT],
    ReservedContract[PoolT, ConnT],
    HookContract[PoolT, ConnT],
    AdapterFixtures[PoolT, ConnT],
    Generic[PoolT, ConnT],
):
    """The contract; give it the fixture `subject`."""
