"""The contract finds the mistakes that authors of adapters make: here those that it finds quickly,
`hatch run mistakes` has all of them."""

from pathlib import Path

import pytest
from tests.testing.mistakes.finding import find
from tests.testing.mistakes.mistakes import MISTAKES

from pyscopg2.testing.contract import AdapterContract

QUICK = [each for each in MISTAKES if not each.is_slow]


def test_there_are_twenty_and_each_has_a_test_of_the_contract() -> None:
    assert len({each.name for each in MISTAKES}) == len(MISTAKES) >= 20
    assert len({each.adapter for each in MISTAKES}) == len(MISTAKES)
    for each in MISTAKES:
        assert hasattr(AdapterContract, each.test.partition("[")[0]), each.name


def test_those_that_are_found_quickly_are_found() -> None:
    """One after another on one server: what one leaves behind is no matter of the next one's."""
    findings = find(QUICK)
    assert len(findings) == len(QUICK) >= 12
    missed = {each.mistake.name: each.said for each in findings if not each.is_found}
    assert missed == {}


@pytest.mark.parametrize("package", ["mistakes", "wrong_adapters"])
def test_nothing_of_it_is_collected_by_itself(package: str) -> None:
    """Its tests fail."""
    assert list(Path(__file__).with_name(package).glob("test_*.py")) == []
