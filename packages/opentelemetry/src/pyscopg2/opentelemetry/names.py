"""What a manager's pools are called."""

from typing import Any

from pyscopg2.base import BasePoolManager

_taken: set[str] = set()
"""The names that are in use in this process."""


class Names:
    """The names of one manager's pools: of all together, and of each host's."""

    def __init__(self, manager: str, hosts: dict[str, str]) -> None:
        self.manager = manager
        """Of all hosts' pools together."""
        self.hosts = hosts
        """By address."""

    def give_back(self) -> None:
        """Others may have them."""
        _taken.difference_update((self.manager, *self.hosts.values()))


def free_names(manager: BasePoolManager[Any, Any], name: str | None) -> Names:
    """``db1:5432/app`` for each host, behind ``name`` if there is one; numbered where another
    manager has one of them."""
    number = 1
    while True:
        names = _names(manager, name, number)
        wanted = {names.manager, *names.hosts.values()}
        if wanted.isdisjoint(_taken):
            _taken.update(wanted)
            return names
        number += 1


def _names(manager: BasePoolManager[Any, Any], name: str | None, number: int) -> Names:
    before = "" if name is None else f"{name} "
    behind = "" if number == 1 else f" ({number})"
    hosts = {
        address: f"{before}{address}/{target.database}{behind}"
        for address, target in manager.targets.items()
    }
    databases = dict.fromkeys(target.database for target in manager.targets.values())
    together = f"{before}{','.join(hosts)}/{','.join(databases)}{behind}"
    # One host is all hosts, too.
    return Names(together if len(hosts) > 1 else f"{together} (all)", hosts)
