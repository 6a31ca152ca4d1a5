"""psqlpy keeps both contracts, but for what it can't do."""

import pytest
from psqlpy import Connection, Error

from psqlpy_pool import Pool, PoolManager, PsqlpyAdapter
from pyscopg2.testing.contract import AdapterContract, Subject
from pyscopg2.testing.manager_contract import ManagerContract, ManagerSubject

SUBJECT: Subject[Pool, Connection] = Subject(
    PsqlpyAdapter(),
    execute=lambda connection, sql: connection.execute(sql, prepared=False),
    commits=False,
    autocommit=True,
    sizes=lambda minimum, maximum: {"max_size": maximum},
    transactions={"transaction()": lambda connection: connection.transaction()},
    sqlstates=False,
    cancels_connects=False,
)


class TestPsqlpy(AdapterContract[Pool, Connection]):
    @pytest.fixture
    def subject(self) -> Subject[Pool, Connection]:
        return SUBJECT


class TestPsqlpyManager(ManagerContract[Pool, Connection]):
    @pytest.fixture
    def subject(self) -> ManagerSubject[Pool, Connection]:
        return ManagerSubject(PoolManager, SUBJECT, errors=(Error,))
