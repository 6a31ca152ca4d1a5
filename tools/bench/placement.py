"""Where processes run while something is measured."""

from collections.abc import Generator
from contextlib import contextmanager, suppress

import psutil


@contextmanager
def on_one_core() -> Generator[None]:
    """This process and the servers that it has started share one core meanwhile: nobody has to be
    woken elsewhere."""
    with _placed(slice(1), slice(1)):
        yield


@contextmanager
def apart() -> Generator[None]:
    """This process has a core of its own meanwhile, the servers that it has started have the
    others, as on machines of their own: who asks wakes a core that sleeps."""
    with _placed(slice(1), slice(1, None)):
        yield


@contextmanager
def _placed(ours: slice, theirs: slice) -> Generator[None]:
    """Of the cores that this process may use.

    For one who asks, waits and asks again. To wake a server on another core takes as long as all
    that it does, on a virtual machine longer; whether it is on another one would be chance, and
    stay so for the whole run: one contender would look twice as fast as the other.
    """
    this = psutil.Process()
    cores = this.cpu_affinity() if hasattr(this, "cpu_affinity") else None  # not on macOS
    if cores is None or not cores[theirs]:
        yield
        return
    servers = this.children(recursive=True)
    try:
        _place([this], cores[ours])
        # The postmaster first: what it forks meanwhile goes where it is.
        _place(servers, cores[theirs])
        yield
    finally:
        _place([this, *servers, *this.children(recursive=True)], cores)


def _place(processes: list[psutil.Process], cores: list[int]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.cpu_affinity(cores)
