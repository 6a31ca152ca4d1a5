"""What asyncpg and asyncpgsa have in common."""

import asyncpg
from tests.adapters.on_asyncpg.bulk_suite import BulkSuite
from tests.adapters.on_asyncpg.giving_back_suite import GivingBackSuite
from tests.adapters.on_asyncpg.hooks_suite import HooksSuite
from tests.adapters.on_asyncpg.reserved_suite import ReservedSuite, StandbySuite
from tests.adapters.on_asyncpg.support import Driver
from tests.adapters.on_asyncpg.survival_suite import IdleTimeoutSuite, SurvivalSuite

from pyscopg2.asyncpg import AsyncpgAdapter, PoolManager

DRIVER = Driver(AsyncpgAdapter(), PoolManager, asyncpg.Connection)


class TestReserved(ReservedSuite):
    driver = DRIVER


class TestReservedOnAStandby(StandbySuite):
    driver = DRIVER


class TestHooks(HooksSuite):
    driver = DRIVER


class TestBulk(BulkSuite):
    driver = DRIVER


class TestGivingBack(GivingBackSuite):
    driver = DRIVER


class TestSurvival(SurvivalSuite):
    driver = DRIVER


class TestIdleTimeout(IdleTimeoutSuite):
    driver = DRIVER
