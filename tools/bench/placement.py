"""Where processes run while something is measured."""

from collections.abc import Generator
from contextlib import contextmanager, suppress

import psutil


@contextmanager
def on_one_core() -> Generator[None]:
    """This process and the servers that it has started share one core meanwhile.

    For one who asks, waits and asks again. A server on a core that sleeps has to be woken, which
    takes as long as all that it does, on a virtual machine longer; whether it is on such a core is
    chance, and stays so for the whole run: one contender would look twice as fast as the other.
    """
    this = psutil.Process()
    if not hasattr(this, "cpu_affinity"):  # macOS
        yield
        return
    everywhere = this.cpu_affinity()
    assert everywhere is not None
    _place(this, everywhere[:1])
    try:
        yield
    finally:
        _place(this, everywhere)


def _place(this: psutil.Process, cores: list[int]) -> None:
    # The postmaster first: what it forks meanwhile goes where it is.
    for process in (this, *this.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            process.cpu_affinity(cores)
