"""Each test of the contract fails for an adapter that is wrong in just that."""

import gc
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.testing.right_adapters import Committing, Reserving, subject_of
from tests.testing.wrong_adapters.blocks import WRONG_BLOCKS
from tests.testing.wrong_adapters.checks import WRONG_CHECKS
from tests.testing.wrong_adapters.connections import WRONG_CONNECTIONS
from tests.testing.wrong_adapters.pools import WRONG_POOLS
from tests.testing.wrong_adapters.transactions import WRONG_TRANSACTIONS
from tests.testing.wrong_adapters.wrong import BACKENDS, HANGS, OUT, SOCKETS, Wrong

from pyscopg2.testing import bench as bench_module
from pyscopg2.testing.bench import TABLES, Bench
from pyscopg2.testing.cluster import LocalCluster
from pyscopg2.testing.contract import AdapterContract, Subject
from pyscopg2.testing.contracts import adapter as parts
from pyscopg2.testing.contracts.adapter.block_contract import BlockContract
from pyscopg2.testing.contracts.adapter.booth import Booth
from pyscopg2.testing.contracts.adapter.hook_contract import HookContract, Hooked
from pyscopg2.testing.contracts.adapter.pair import ROLES, Pair
from pyscopg2.testing.contracts.adapter.reserved_contract import ReservedContract


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(replicas=0) as cluster:
        cluster.psql(cluster.primary, TABLES)
        yield cluster


class TestARightAdapterThatReserves(ReservedContract[Any, Any], HookContract[Any, Any]):
    @pytest.fixture
    def subject(self) -> Subject[Any, Any]:
        return subject_of(Reserving())

    @pytest.fixture
    def bench(self, subject: Subject[Any, Any], cluster: LocalCluster) -> Iterator[Bench[Any, Any]]:
        bench = Bench(subject, cluster)
        yield bench
        cluster.thaw(bench.node)
        bench.wait_for_no_backends()


@pytest.mark.parametrize(
    "name",
    [
        "test_a_pool_has_room_for_its_users_and_a_monitor_that_takes_from_it",
        "test_a_pool_closes_when_all_its_connections_were_terminated",
    ],
)
def test_a_right_adapter_that_reserves_has_its_pools_for_users(
    cluster: LocalCluster, name: str
) -> None:
    bench = Bench(subject_of(Reserving()), cluster)
    getattr(AdapterContract[Any, Any](), name)(bench)
    bench.wait_for_no_backends()


TESTS = [name for name in dir(AdapterContract) if name.startswith("test_")]

BLOCKS = [name for name in vars(BlockContract) if name.startswith("test_") and "block" in name]


@pytest.mark.parametrize("name", BLOCKS)
def test_a_right_adapter_that_commits_keeps_the_contract(cluster: LocalCluster, name: str) -> None:
    bench = Bench(subject_of(Committing()), cluster)
    getattr(AdapterContract[Any, Any](), name)(bench)
    bench.wait_for_no_backends()


WRONG = [*WRONG_POOLS, *WRONG_CONNECTIONS, *WRONG_BLOCKS, *WRONG_TRANSACTIONS, *WRONG_CHECKS]


def test_every_test_of_the_contract_has_its_wrong_adapter() -> None:
    assert set(TESTS) == {each.test for each in WRONG}


@pytest.fixture(scope="module")
def pair_cluster() -> Iterator[LocalCluster]:
    with LocalCluster(replicas=1) as cluster:
        cluster.psql(cluster.primary, ROLES)
        cluster.wait_streaming()
        yield cluster


@pytest.fixture
def swept(cluster: LocalCluster) -> Iterator[None]:
    """Nothing of a wrong adapter is left to the next one."""
    yield
    cluster.thaw(cluster.primary)
    cluster.psql(
        cluster.primary,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
    )
    gc.collect()


@pytest.mark.filterwarnings("ignore")  # what a wrong adapter leaves behind
@pytest.mark.usefixtures("swept")
@pytest.mark.parametrize("each", WRONG, ids=str)
def test_a_wrong_adapter_fails(
    cluster: LocalCluster,
    each: Wrong,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if each.fails in (HANGS, OUT, SOCKETS, BACKENDS):
        for module in (bench_module, *vars(parts).values()):
            if hasattr(module, "SOON"):
                monkeypatch.setattr(module, "SOON", 0.5)  # nobody gains by waiting longer
    adapter: Any = type("Broken", (each.base,), {**each.verbs, "notes": {}})()
    subject = subject_of(adapter, transactions=each.transactions, hooks=each.hooks)
    bench = Bench(subject, cluster)
    test = getattr(AdapterContract[Any, Any](), each.test)
    given: dict[str, Callable[[], Any]] = {
        "bench": lambda: bench,
        "booth": lambda: Booth(bench, adapter),
        "hooked": lambda: Hooked(bench),
        "pair": lambda: Pair(subject, request.getfixturevalue("pair_cluster")),
    }
    first = next(iter(inspect.signature(test).parameters))
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        test(given[first](), **each.case)
    assert re.search(each.fails, f"{caught.typename}: {caught.value}"), caught.value
