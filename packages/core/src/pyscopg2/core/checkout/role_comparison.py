"""Whether users' connections tell another role than their host's checks do.

An address may lead to several servers, and a pool to one that was promoted, while the monitor's own
connection leads to another. So for a while after the master has changed, what comes back is asked.
"""

from typing import Any, Generic

from pyscopg2.core.adapter.protocol import ConnT, TellsRecovery
from pyscopg2.core.checkout.host_pool import HostPool
from pyscopg2.core.monitoring.attention import Attention
from pyscopg2.core.topology.store import Store


class RoleComparison(Generic[ConnT]):
    """For drivers that keep what servers report by themselves."""

    def __init__(self, driver: TellsRecovery[ConnT], store: Store, attention: Attention) -> None:
        self._driver = driver
        self._store = store
        self._attention = attention

    def compare(self, connection: ConnT, host_pool: HostPool[Any]) -> None:
        """Tell where a connection of this host pool says otherwise than the last check did."""
        told = self._driver.in_recovery(connection)
        if told is None or host_pool.retired:
            return
        answer = self._store.topology[host_pool.address].answer
        if answer is not None and answer.in_recovery is (not told):
            self._attention.contradict(host_pool.address, told)
