"""Some seeds of the simulation; `hatch run simulate --seeds 10000` runs more of them."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tools.simulate.command import again, main, tell
from tools.simulate.mutation import MUTATIONS
from tools.simulate.simulation import simulate

ROOT = Path(__file__).parents[2]
SEEDS = 100
FENCING_OFF = next(each for each in MUTATIONS if each.name == "fencing is off")

DIGEST = """
import hashlib
from tools.simulate.simulation import simulate
for seed in reversed(range(8)):
    print(hashlib.sha256(str(simulate(seed).trace).encode()).hexdigest())
"""


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
def test_no_invariant_breaks(first: int) -> None:
    for seed in range(first, first + 10):
        result = simulate(seed)
        assert result.broken is None, tell(result)


@pytest.mark.parametrize("seed", [10918])
def test_seeds_that_found_something(seed: int) -> None:
    """A scout that finds a server of another system, in the role that is known already."""
    result = simulate(seed)
    assert result.broken is None, tell(result)


def test_a_seed_is_the_same_run_in_every_process() -> None:
    def digests(hash_seed: str) -> list[str]:
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", DIGEST]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.split()

    here = [hashlib.sha256(str(simulate(seed).trace).encode()).hexdigest() for seed in range(8)]
    assert digests("1") == digests("2") == here[::-1]


def test_different_seeds_are_different_runs() -> None:
    assert len({str(simulate(seed).trace) for seed in range(5)}) == 5


def test_what_breaks_is_told_with_its_story_and_can_be_seen_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with FENCING_OFF.applied():
        found = next(r for r in map(simulate, range(100)) if r.broken is not None)
        same = simulate(found.seed)
    assert str(same.trace) == str(found.trace)
    story = tell(found, FENCING_OFF.name)
    assert "is promoted" in story
    assert "BROKEN" in story
    assert story.endswith(again(found.seed, FENCING_OFF.name))
    assert main(["--seed", str(found.seed), "--mutation", FENCING_OFF.name]) == 1
    assert str(found.trace) in capsys.readouterr().out
    assert main(["--seed", str(found.seed)]) == 0


def test_the_command_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "3", "--jobs", "1"]) == 0
    assert "3 seeds" in capsys.readouterr().out


def test_a_mutation_that_no_longer_fits_says_so() -> None:
    lost = FENCING_OFF._replace(before="what is not there")
    with pytest.raises(LookupError, match="fencing is off"), lost.applied():
        pass
