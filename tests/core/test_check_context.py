"""The context in which hosts are checked, and those in which they are not."""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from tests.core.conftest import Bench, virtual

request: ContextVar[str] = ContextVar("request", default="none")


@virtual
async def test_checks_have_a_context_of_their_own_and_so_has_the_opening_of_pools() -> None:
    seen: dict[str, set[str]] = {}

    async with Bench(replicas=0, ready=False) as bench:
        adapter: Any = bench.adapter

        def spy(verb: str) -> None:
            original: Callable[..., Awaitable[Any]] = getattr(adapter, verb)

            async def spied(*args: Any, **kwargs: Any) -> Any:
                seen.setdefault(verb, set()).add(request.get())
                return await original(*args, **kwargs)

            setattr(adapter, verb, spied)

        for verb in ("create_pool", "reserve", "acquire_from_pool"):
            spy(verb)
        # The request that uses the manager first does not follow it around.
        request.set("the first")
        bench.manager.check_context.run(request.set, "a check")
        async with bench.manager.acquire(timeout=5):
            pass
        # Set later, the next check finds it.
        bench.manager.check_context.run(request.set, "a later check")
        bench["db1"].down()
        await bench.until_roles("unavailable")
        bench["db1"].up()
        await bench.until_roles("master")
    assert seen == {
        "reserve": {"a check", "a later check"},
        "create_pool": {"none"},
        "acquire_from_pool": {"the first"},
    }
