"""mydriver keeps both contracts."""

import psycopg
import pytest

from mydriver_pyscopg2 import Connection, Pool, PoolManager
from mydriver_pyscopg2.adapter import PsycopgAdapter
from pyscopg2.testing.contract import AdapterContract, Subject
from pyscopg2.testing.manager_contract import ManagerContract, ManagerSubject

SUBJECT: Subject[Pool, Connection] = Subject(
    PsycopgAdapter(),
    execute=lambda connection, sql: connection.execute(sql.encode()),
    commits=False,
    autocommit=True,
    transactions={"transaction()": lambda connection: connection.transaction()},
)


class TestMydriver(AdapterContract[Pool, Connection]):
    @pytest.fixture
    def subject(self) -> Subject[Pool, Connection]:
        return SUBJECT


class TestMydriverManager(ManagerContract[Pool, Connection]):
    @pytest.fixture
    def subject(self) -> ManagerSubject[Pool, Connection]:
        return ManagerSubject(PoolManager, SUBJECT, errors=(psycopg.Error,))
