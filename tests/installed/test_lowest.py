"""What an environment of `lowest` has: the lowest versions that its adapter allows."""

from importlib.metadata import distributions, requires, version

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ADAPTERS = {
    distribution.name
    for distribution in distributions()
    if distribution.name.startswith("pyscopg2-")
} - {"pyscopg2-core", "pyscopg2-testing"}


@pytest.mark.parametrize("adapter", sorted(ADAPTERS))
def test_the_lowest_versions_are_installed(adapter: str) -> None:
    for requirement in map(Requirement, requires(adapter) or ()):
        if requirement.name != "pyscopg2-core":
            # Extras of the adapter are drivers, all of them installed here.
            lowest = [each.version for each in requirement.specifier if each.operator == ">="]
            assert [Version(each) for each in lowest] == [Version(version(requirement.name))], (
                requirement
            )


def test_there_is_one_adapter() -> None:
    assert len(ADAPTERS) == 1
