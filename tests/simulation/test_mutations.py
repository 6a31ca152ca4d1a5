"""That the simulation can fail: each known bug, put back into the core, is found.

The search begins at a seed that found it once. `hatch run simulate --mutations` searches longer.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tools.simulate.command import seeds_until_found
from tools.simulate.mutation import MUTATIONS, Mutation

MOST = 1000


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_is_found(mutation: Mutation) -> None:
    count, result = seeds_until_found(mutation, MOST)
    assert result is not None
    assert result.broken is not None
    print(f"{count} seeds: {result.broken}")


def test_there_are_enough_of_them_and_each_has_a_name() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 16
