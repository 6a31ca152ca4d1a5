"""What every `PoolManager` must do, as tests: subclass `ManagerContract` with one fixture.

::

    class TestMyPoolManager(ManagerContract[MyPool, MyConnection]):
        @pytest.fixture
        def subject(self) -> ManagerSubject[MyPool, MyConnection]:
            return ManagerSubject(PoolManager, driver=SUBJECT, errors=(MyError, OSError))

`AdapterContract` holds the adapter to its Protocol, verb by verb. These tests see what becomes of
it in its users' hands: the whole public surface of `BasePoolManager` on a real cluster of a primary
and two replicas (`LocalCluster`), by each of the balancer policies where those matter, while hosts
are killed, promoted, restarted and frozen. Each runs in an event loop of its own, and leaves
neither a task nor a connection.
"""

from collections.abc import Iterator
from typing import Generic

import pytest

from pyscopg2.core.adapter import ConnT, PoolT
from pyscopg2.testing.bench import told_gaps
from pyscopg2.testing.cluster import LocalCluster
from pyscopg2.testing.contracts.healing import heal, wait_for_no_backends
from pyscopg2.testing.contracts.manager.argument_contract import ArgumentContract
from pyscopg2.testing.contracts.manager.block_contract import BlockContract
from pyscopg2.testing.contracts.manager.checkout_contract import CheckoutContract
from pyscopg2.testing.contracts.manager.desk import Desk
from pyscopg2.testing.contracts.manager.end_contract import EndContract
from pyscopg2.testing.contracts.manager.fresh_contract import FreshContract
from pyscopg2.testing.contracts.manager.hook_contract import HookContract
from pyscopg2.testing.contracts.manager.outage_contract import OutageContract
from pyscopg2.testing.contracts.manager.pool_contract import PoolContract
from pyscopg2.testing.contracts.manager.selection_contract import SelectionContract
from pyscopg2.testing.contracts.manager.subject import ManagerSubject
from pyscopg2.testing.contracts.manager.waiting_contract import WaitingContract

__all__ = ("ManagerContract", "ManagerFixtures", "ManagerSubject")


class ManagerFixtures(Generic[PoolT, ConnT]):
    """What the parts of the contract need, for a class that has some of them only: the fixture
    `subject` is its own."""

    @pytest.fixture(scope="class")
    @classmethod
    def manager_cluster(cls) -> Iterator[LocalCluster]:
        settings = {
            "log_line_prefix": "%n ",  # seconds since 1970
            # A server that works on a query does not look whether its client is still there.
            "client_connection_check_interval": "100ms",
        }
        with LocalCluster(replicas=2, settings=settings) as cluster:
            cluster.psql(cluster.primary, "CREATE TABLE surface (item text)")
            cluster.wait_streaming()
            yield cluster
            for node in cluster.nodes:
                wait_for_no_backends(cluster, node)

    @pytest.fixture(autouse=True)
    def declared_gaps(
        self, subject: ManagerSubject[PoolT, ConnT], request: pytest.FixtureRequest
    ) -> None:
        """What the run tells at its end."""
        request.node.user_properties += told_gaps(self, subject.driver)

    @pytest.fixture
    def desk(
        self,
        request: pytest.FixtureRequest,
        subject: ManagerSubject[PoolT, ConnT],
        manager_cluster: LocalCluster,
    ) -> Iterator[Desk[PoolT, ConnT]]:
        """All servers are well; the test leaves them so."""
        desk = Desk(subject, manager_cluster, request.node.name)
        yield desk
        if desk.has_failed:
            desk.end_leftovers()

    @pytest.fixture
    def broken_desk(self, desk: Desk[PoolT, ConnT]) -> Iterator[Desk[PoolT, ConnT]]:
        """For tests that kill, freeze and promote; the servers are well again afterwards."""
        yield desk
        heal(desk.cluster)


class ManagerContract(
    ArgumentContract[PoolT, ConnT],
    SelectionContract[PoolT, ConnT],
    CheckoutContract[PoolT, ConnT],
    FreshContract[PoolT, ConnT],
    HookContract[PoolT, ConnT],
    BlockContract[PoolT, ConnT],
    PoolContract[PoolT, ConnT],
    WaitingContract[PoolT, ConnT],
    EndContract[PoolT, ConnT],
    OutageContract[PoolT, ConnT],
    ManagerFixtures[PoolT, ConnT],
    Generic[PoolT, ConnT],
):
    """The contract; give it the fixture `subject`."""
