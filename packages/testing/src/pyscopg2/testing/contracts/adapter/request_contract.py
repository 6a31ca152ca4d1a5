"""The part of `pyscopg2.testing.contract` on whole requests that are cancelled: at each await of
acquire, block and release, once and again."""

from typing import Generic

from pyscopg2.core.adapter import ConnT, PoolT
from pyscopg2.testing.bench import Bench
from pyscopg2.testing.contracts.interrupted import ENOUGH, Interrupted, each_way
from pyscopg2.testing.contracts.own_loop import in_own_loop

__all__ = ("RequestContract",)


class RequestContract(Generic[PoolT, ConnT]):
    """A part of `AdapterContract`."""

    @each_way
    @in_own_loop
    async def test_interrupted_requests_cost_no_slot(
        self, bench: Bench[PoolT, ConnT], again: bool
    ) -> None:
        """Whole ones, as many at a time as the pool has slots, each cancelled somewhere else."""

        async def request(pool: PoolT) -> None:
            connection = await bench.acquire(pool)
            failure: BaseException | None = None
            try:
                for _ in range(2):
                    await bench.insert(connection)
            except BaseException as exc:
                failure = exc
                raise
            finally:
                try:
                    await bench.end_block(connection, failure)
                finally:
                    await bench.release(connection, pool)

        async with bench.pool(0, 2) as pool:
            size = bench.size_of(pool)
            for turn in range(ENOUGH):
                requests = [
                    Interrupted(request(pool), turn + 3 * number, again, late=False)
                    for number in range(size)
                ]
                await bench.end(*(each.task for each in requests))
                await bench.all_slots_are_free(pool)
                if not any(each.happened for each in requests):
                    return
            raise AssertionError("acquire, block and release suspend for ever")
