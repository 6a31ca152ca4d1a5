"""What the pages for production have people run."""

import re

import pytest
from tests.support.programs import blocks
from tools.site.pages import DOCS, ROOT

from pyscopg2.testing.cluster import LocalCluster

SQL = [
    pytest.param(text, id=f"{path.stem}:{line}")
    for path in sorted((ROOT / DOCS / "production").glob("*.md"))
    for line, text in blocks(path.read_text(), "sql")
]

MADE = ("app", "app_a", "app_b", "reports")
"""Roles that they make, or that are there."""


def test_there_is_sql() -> None:
    assert len(SQL) > 5


@pytest.mark.parametrize("sql", SQL)
def test_the_server_takes_it(sql: str, cluster: LocalCluster) -> None:
    def run(statement: str) -> str:
        return cluster.psql(cluster.primary, statement)

    run("CREATE DATABASE shop")
    there = [role for role in MADE if f"CREATE ROLE {role} " not in sql]
    for role in there:
        run(f"CREATE ROLE {role}")
    try:
        for statement in re.split(r";.*\n", sql):
            if statement.strip():
                run(statement)
    finally:
        run("DROP DATABASE shop")
        for role in MADE:
            run(f"DROP OWNED BY {role}")
            run(f"DROP ROLE {role}")
        run("ALTER SYSTEM RESET ALL")
        run("SELECT pg_reload_conf()")
