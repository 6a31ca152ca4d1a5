"""PostgreSQL's programs, run in a cluster's folders."""

import contextlib
import subprocess
from collections.abc import Sequence
from typing import IO

from pyscopg2.testing.cluster.deadline import Deadline
from pyscopg2.testing.cluster.node import DATABASE, USER, Node
from pyscopg2.testing.cluster.site import Site
from pyscopg2.testing.postgres import ClusterError, environment

__all__ = ("Programs",)


class Programs:
    """What a cluster runs: its servers, what makes them, and ``psql``."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def start(
        self,
        node: Node,
        command: Sequence[str],
        upstream: Node | None = None,
        log: IO[bytes] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start one of PostgreSQL's programs in the node's folder.

        Relative paths only: if the folder is gone, what starts late can't make it anew.
        """
        site = self._site
        extra = {"PGHOST": upstream.host, "PGPORT": str(upstream.port)} if upstream else {}
        if log is None:
            extra |= {"PGUSER": USER, "PGPASSWORD": site.password}
            extra |= {"PGOPTIONS": site.own_session}
        return site.account.spawn(
            [site.binaries.program(command[0]), *command[1:]],
            cwd=node.folder,
            env=environment(HOME=str(site.root), **extra),
            stdout=log or subprocess.PIPE,
            stderr=log or subprocess.PIPE,
        )

    def finish(
        self, process: subprocess.Popen[bytes], deadline: Deadline, what: str, node: Node
    ) -> None:
        """Wait for what was started in the node's folder; `what` names it in errors."""
        try:
            _finish(process, deadline.left, what)
        except BaseException:
            # A program may have children that outlive it.
            with contextlib.suppress(ClusterError):
                self._site.kill(node)
            raise

    def query(self, node: Node, sql: str, timeout: float, **variables: str) -> str:
        """What ``psql`` prints, in a session of the cluster's own.

        `variables` are of libpq's environment, where the session is to be another's.
        """
        site = self._site
        login = {
            "PGDATABASE": DATABASE,
            "PGUSER": USER,
            "PGPASSWORD": site.password,
            "PGOPTIONS": site.own_session,
        }
        process = site.account.spawn(
            [site.binaries.program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-"],
            # Inside the cluster's folder: it ends with the cluster.
            cwd=site.root,
            env=environment(
                HOME=str(site.root),
                PGHOST=node.host,
                PGPORT=str(node.port),
                **(login | variables),
            ),
            stdin=subprocess.PIPE,
        )
        return _finish(process, timeout, f"psql on {node!r}", sql.encode()).strip()


def _finish(
    process: subprocess.Popen[bytes], timeout: float, what: str, given: bytes | None = None
) -> str:
    """Wait for a program and return what it printed; `what` names it in errors."""
    with process:
        try:
            printed, complaints = process.communicate(given, timeout)
        except BaseException as error:
            process.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise ClusterError(f"{what} gave no answer in {timeout:g} s") from None
            raise
    if process.returncode != 0:
        said = complaints.decode(errors="replace").strip()
        raise ClusterError(f"{what} failed with exit code {process.returncode}:\n{said}")
    return printed.decode(errors="replace")
