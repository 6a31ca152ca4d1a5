"""That mutants are found where tests look, and nowhere else."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tools.mutants.__main__ import run
from tools.mutants.mutants import MUTANTS

BITES_TWICE = next(each for each in MUTANTS if each.name == "the watchdog bites twice")


@pytest.mark.parametrize(
    ("tests", "is_found"), [("test_watchdog.py", True), ("test_alarm.py", False)]
)
def test_a_mutant_is_found_where_tests_look(tests: str, is_found: bool) -> None:
    mutant, found, _ = run(BITES_TWICE._replace(tests=(f"tests/core/{tests}",)))
    assert mutant.name == BITES_TWICE.name
    assert (found is not None) is is_found


def test_each_mutant_fits_the_source_of_today() -> None:
    for mutant in MUTANTS:
        with mutant.mutation.applied():
            pass
