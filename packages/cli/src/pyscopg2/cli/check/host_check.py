"""One host, stage by stage: its name, the way there, who answers, the login, the facts."""

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import asyncpg

from pyscopg2.cli.check import deadlines
from pyscopg2.cli.check.facts import Facts, ask_facts
from pyscopg2.cli.check.finding import Finding, Kind
from pyscopg2.cli.check.greeting import greet, socket_path
from pyscopg2.cli.check.login import DEMANDS_TLS, log_in, refusal
from pyscopg2.cli.check.name import resolve_name
from pyscopg2.cli.check.pooler import Pooler, find_pooler, kind_of_failure
from pyscopg2.cli.check.verdict import judge_facts
from pyscopg2.core.diagnosis.redaction import describe
from pyscopg2.core.dsn import Target

if TYPE_CHECKING:
    from asyncpg import Connection, Record

_BROKEN = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
"""What a query raises that a server refuses, or that loses its connection."""


@dataclass(frozen=True, slots=True)
class HostReport:
    """How far a check of a host came. None stands for what it did not come to."""

    address: str
    addresses: tuple[str, ...] = ()
    """What its name stands for; empty for a socket."""
    connect_time: float | None = None
    """Of the bare connection, in seconds."""
    offers_tls: bool | None = None
    login_time: float | None = None
    """Of a whole login, TLS included, in seconds."""
    facts: Facts | None = None
    pooler: Pooler | None = None
    findings: tuple[Finding, ...] = ()


async def check_host(target: Target) -> HostReport:
    """Goes on until something stands in the way. Raises nothing but a cancellation."""
    return await _HostCheck(target).run()


class _HostCheck:
    """A check on its way."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._report = HostReport(target.address)
        self._stage = "to resolve the name"

    async def run(self) -> HostReport:
        try:
            async with asyncio.timeout(deadlines.ALL):
                if await self._reach():
                    await self._enter()
        except TimeoutError:
            self._find_out_of_time(deadlines.ALL)
        return self._report

    async def _reach(self) -> bool:
        """Whether a server of PostgreSQL's protocol answers there."""
        if socket_path(self._target) is None and not await self._resolve():
            return False
        self._stage = "to connect"
        greeting = await greet(self._target, self._report.addresses)
        self._report = replace(self._report, connect_time=greeting.connect_time)
        if greeting.fault is not None:
            self._find(greeting.fault, greeting.text)
            return False
        self._report = replace(self._report, offers_tls=greeting.offers_tls)
        sslmode = self._target.params.get("sslmode", "prefer")
        is_local = socket_path(self._target) is not None
        if sslmode in DEMANDS_TLS and not greeting.offers_tls and not is_local:
            self._find(Kind.TLS_REFUSED, f"sslmode is {sslmode}, and the server has no TLS")
            return False
        return True

    async def _resolve(self) -> bool:
        name = self._target.hostaddr or self._target.host or ""
        try:
            async with asyncio.timeout(deadlines.NAME):
                addresses = await resolve_name(name)
        except TimeoutError:
            self._find(Kind.NAME_UNANSWERED, f"the name has no answer after {deadlines.NAME:g} s")
            return False
        except OSError as exc:
            self._find(Kind.NAME_UNKNOWN, f"the name is not known: {exc.strerror or exc}")
            return False
        self._report = replace(self._report, addresses=addresses)
        return True

    async def _enter(self) -> None:
        """The login, and what is asked then."""
        self._stage = "to log in"
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            connection = await log_in(self._target)
        except Exception as exc:
            self._findings(refusal(exc, self._target))
            return
        self._report = replace(self._report, login_time=loop.time() - begun)
        try:
            await self._ask(connection)
        finally:
            connection.terminate()

    async def _ask(self, connection: "Connection[Record]") -> None:
        self._stage = "to ask the server"
        try:
            async with asyncio.timeout(deadlines.FACTS):
                facts = await ask_facts(connection)
        except TimeoutError:
            self._find_out_of_time(deadlines.FACTS)
            return
        except _BROKEN as exc:
            said = describe(exc, self._target.secrets)
            self._find(kind_of_failure(said), said)
            return
        pooler = await find_pooler(connection, facts.pid, partial(log_in, self._target))
        self._report = replace(self._report, facts=facts, pooler=pooler)
        self._findings(*judge_facts(self._target.address, facts, pooler))

    def _find_out_of_time(self, seconds: float) -> None:
        # A warning: whether the host can be used is for the manager to say, which looks at it, too.
        self._find(Kind.OUT_OF_TIME, f"{self._stage}: not done after {seconds:g} s")

    def _find(self, kind: Kind, text: str) -> None:
        self._findings(Finding(kind, text, self._target.address))

    def _findings(self, *findings: Finding) -> None:
        self._report = replace(self._report, findings=(*self._report.findings, *findings))
