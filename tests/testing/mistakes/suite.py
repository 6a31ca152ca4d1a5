"""The contract, of each wrong adapter: not collected by itself, since its tests fail."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.testing.mistakes.mistakes import MISTAKES, Mistake
from tests.testing.right_adapters import execute, execute_in_transaction

from pyscopg2.testing.bench import TABLES
from pyscopg2.testing.cluster import LocalCluster
from pyscopg2.testing.contract import AdapterContract, Subject


@pytest.fixture(scope="session")
def only_cluster() -> Iterator[LocalCluster]:
    with LocalCluster(replicas=0) as cluster:
        cluster.psql(cluster.primary, TABLES)
        yield cluster


class Suite(AdapterContract[Any, Any]):
    mistake: Mistake

    @pytest.fixture(scope="class")
    @classmethod
    def contract_cluster(cls, only_cluster: LocalCluster) -> LocalCluster:
        return only_cluster

    @pytest.fixture
    def subject(self) -> Subject[Any, Any]:
        adapter = self.mistake.adapter()
        commits = hasattr(adapter, "end_block")
        return Subject(
            adapter,
            execute=execute_in_transaction if commits else execute,
            commits=commits,
            autocommit=not commits,
            **self.mistake.subject,
        )


for _mistake in MISTAKES:
    globals()[_mistake.suite] = type(_mistake.suite, (Suite,), {"mistake": _mistake})
