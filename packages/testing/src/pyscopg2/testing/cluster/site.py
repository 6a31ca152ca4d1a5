"""What a started cluster has."""

import contextlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pyscopg2.testing.cluster.node import Node
from pyscopg2.testing.cluster.settings import own_session, server_settings
from pyscopg2.testing.guardian import Guardian, GuardianError
from pyscopg2.testing.postgres import (
    Account,
    AccountMode,
    ClusterError,
    PostgresBinaries,
    temporary_folder,
)

__all__ = ("Site",)


@dataclass(frozen=True)
class Site:
    """A folder with all that the cluster writes, and the guardian that removes it in the end."""

    guardian: Guardian
    account: Account
    binaries: PostgresBinaries
    password: str
    """The superuser's."""
    settings: Mapping[str, str]
    """The user's, for each server."""

    @classmethod
    def open(
        cls,
        directory: Path | None,
        binaries: PostgresBinaries | None,
        account_mode: AccountMode | None,
        password: str,
        settings: Mapping[str, str],
    ) -> Self:
        binaries = binaries or PostgresBinaries.find()
        account = Account.choose(account_mode)
        parent = temporary_folder(account, directory)
        other = (account.uid, account.gid) if account.is_another_user else (None, None)
        with _cluster_errors():
            guardian = Guardian(parent, uid=other[0], gid=other[1])
        try:
            if not account.can_run(binaries):
                binaries = binaries.copy_to(guardian.root / "binaries")
                account.adopt(guardian.root / "binaries")
            return cls(guardian, account, binaries, password, settings)
        except BaseException:
            with contextlib.suppress(GuardianError):
                guardian.close()
            raise

    def close(self) -> None:
        """End all that runs and remove all files; `ClusterError` if something stays behind."""
        try:
            self.guardian.close()
        except GuardianError as error:
            raise ClusterError(f"the cluster left something behind: {error}") from error

    @property
    def root(self) -> Path:
        return self.guardian.root

    @property
    def own_session(self) -> str:
        """Libpq's ``options`` of the cluster's own sessions."""
        return own_session(self.binaries.major)

    # Files

    def new_node(self, number: int, port: int) -> Node:
        folder = self.root / f"node{number}"
        folder.mkdir()
        self.account.adopt(folder)
        return Node(folder.name, port, folder, self.password)

    def put(self, path: Path, text: str) -> None:
        path.write_text(text)
        self.account.adopt(path)

    def configure(self, node: Node, upstream: Node | None) -> None:
        """Write the server's settings; with an upstream, it is a replica when it starts."""
        if upstream is not None:
            self.put(node.standby_file, "")
        text = server_settings(
            node,
            upstream,
            major=self.binaries.major,
            password=self.password,
            more=self.settings,
        )
        self.put(node.settings_file, text)

    # Processes

    def kill(self, node: Node) -> None:
        """End all processes in the node's folder at once; returns when they are gone."""
        with _cluster_errors():
            self.guardian.kill(node.folder)

    def freeze(self, node: Node) -> None:
        """Stop all processes in the node's folder; returns when none of them runs."""
        with _cluster_errors():
            self.guardian.freeze(node.folder)

    def thaw(self, node: Node) -> None:
        """Let the stopped processes in the node's folder go on."""
        with _cluster_errors():
            self.guardian.thaw(node.folder)


@contextlib.contextmanager
def _cluster_errors() -> Generator[None]:
    try:
        yield
    except GuardianError as error:
        raise ClusterError(str(error)) from error
