"""What machines differ in."""

import subprocess
import sys
from pathlib import Path

from tests.adapters.on_sqlalchemy.support import with_driver
from tests.support.waiting import PATIENCE

from pyscopg2.testing.cluster import LocalCluster

PROGRAM = Path(__file__).parents[1] / "programs/without_poll.py"


def test_a_program_runs_where_there_is_no_poll(cluster: LocalCluster, driver: str) -> None:
    dsn = with_driver(cluster.dsn, driver)
    arguments = [sys.executable, str(PROGRAM), "pyscopg2.sqlalchemy", dsn]
    subprocess.run(arguments, check=True, timeout=PATIENCE)
