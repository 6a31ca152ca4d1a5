"""A DSN with what libpq finds beside its text: service files, environment, password file.

A value is the first of: the DSN's; that of its ``service`` or of ``PGSERVICE``; the environment
variable's; libpq's default. An empty value is a value: it rules out those that follow. Then a
password that is not given is looked up, host by host, in the password file.

`target_session_attrs` and `load_balance_hosts` end here. To choose the host is the manager's work,
so every target says ``any``, which keeps drivers from asking the environment, and there is a
warning where somebody asked for something else.
"""

import stat
import sys
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, replace

from pyscopg2.core.diagnosis.printable import printable
from pyscopg2.core.dsn.grammar import is_misread, read_values
from pyscopg2.core.dsn.hosts import distinct, make_targets
from pyscopg2.core.dsn.keywords import ENVIRONMENT
from pyscopg2.core.dsn.passfile import PasswordFile
from pyscopg2.core.dsn.service_file import read_service
from pyscopg2.core.dsn.surroundings import Surroundings
from pyscopg2.core.dsn.target import Target
from pyscopg2.core.dsn.validity import check_target, check_values
from pyscopg2.core.errors import DsnError

_IGNORED = {
    "target_session_attrs": (
        "any",
        "each acquire says whether it wants a master or a replica",
    ),
    "load_balance_hosts": ("disable", "the manager's balancer_policy chooses the host"),
}
"""The value that says nothing, and what decides instead."""

_CONFIG_DIRECTORIES = ("/etc/postgresql-common", "/etc/sysconfig/pgsql", "/usr/local/pgsql/etc")
"""Likewise."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a DSN means here and now."""

    targets: tuple[Target, ...]
    """One per host, at least one. A user and a dbname are there, a host or a hostaddr, and of the
    latter none is None, so that libpq does not look for it."""
    warnings: tuple[str, ...]
    """For the log: what was ignored, and why. No secrets."""


def resolve(
    text: str,
    surroundings: Surroundings,
    *,
    extra_params: bool | Container[str] = False,
    schemes: Iterable[str] = (),
) -> Resolved:
    """Read a DSN and fill in what it does not say.

    ``extra_params`` and ``schemes`` as for `parse_dsn`; the former counts in service files, too.
    Reads the service and password files, if they are needed, and nothing else.

    `TypeError`: not a `str`. `DsnError`: libpq would refuse what comes together, or the service is
    not to be found. Names the variable, or the file and line, that the fault is in; shows neither
    values nor the DSN's text.
    """
    values = read_values(text, extra_params=extra_params, schemes=schemes)
    return _Resolution(values, surroundings, extra_params, is_misread(text)).run()


class _Resolution:
    """One DSN on its way: what is known of each parameter, and where from."""

    def __init__(
        self,
        values: dict[str, str],
        around: Surroundings,
        extra_params: bool | Container[str],
        misread: bool,
    ) -> None:
        self.values = values
        self.around = around
        self.extra_params = extra_params
        self.misread = misread
        self.sources: dict[str, str] = {}
        self.warnings: list[str] = []

    def run(self) -> Resolved:
        self.add_service()
        self.add_environment()
        if self.values.get("sslrootcert") == "system":
            self.values.setdefault("sslmode", "verify-full")
        check_values(self.values, self.place)
        self.ignore()
        if self.misread:
            self.warnings.append(
                "the DSN has an '@' behind what is read as hosts: if that is of the password, it is"
                " written %40 there, and '/' is written %2F"
            )
        targets = make_targets(self.values, self.sources, misread=self.misread)
        user = targets[0].user or self.around.user
        if not user:
            raise DsnError("user: not given, and the operating system has no name for this one")
        dbname = targets[0].dbname or user
        completed: list[Target] = []
        for target in targets:
            # Empty, not None: libpq would ask the environment, which names several hosts perhaps.
            hostaddr = target.hostaddr or ""
            host = target.host or ("" if hostaddr else self.around.default_host)
            complete = replace(target, host=host, hostaddr=hostaddr, user=user, dbname=dbname)
            completed.append(complete)
            check_target(complete, self.place)
        if not targets[0].password and (text := self.password_file()) is not None:
            hosts = frozenset(map(self.as_looked_up, completed))
            passwords = PasswordFile(text, hosts, dbname, user)
            completed = [self.with_password(target, passwords) for target in completed]
        # Again: the default host may stand in the list by its name, too.
        return Resolved(distinct(completed), tuple(self.warnings))

    def add(self, name: str, value: str, source: str) -> None:
        if name not in self.values:
            self.values[name] = value
            self.sources[name] = source

    def place(self, name: str) -> str:
        """Where a value comes from, for messages about it."""
        return f"{source}: {name}" if (source := self.sources.get(name)) else name

    # Where values come from

    def add_service(self) -> None:
        service = self.values.pop("service", None)
        place = "service"
        if service is None:
            service = self.around.environ.get("PGSERVICE")
            place = "PGSERVICE"
        if service is None:
            return
        looked: list[str] = []
        for shown, text in self.service_files():
            found = read_service(text, service, shown, self.extra_params)
            if found is not None:
                for name, (value, source) in found.items():
                    self.add(name, value, source)
                if place == "service" and "PGSERVICE" in self.around.environ:
                    # libpq would look up that one, if it were not told of this one.
                    self.values["service"] = service
                return
            looked.append(shown)
        raise DsnError(f"{place}: no such service in {' or '.join(looked) or 'any file'}")

    def service_files(self) -> Iterator[tuple[str, str]]:
        """What each is called in messages, and its text."""
        environ = self.around.environ
        paths: list[str] = []
        chosen = environ.get("PGSERVICEFILE")
        if chosen is not None:
            shown = f"PGSERVICEFILE {printable(chosen)}"
            yield shown, self.read(chosen, shown) or ""
        elif self.around.home is not None:
            paths.append(f"{self.around.home}/.pg_service.conf")
        configured = environ.get("PGSYSCONFDIR")
        directories = _CONFIG_DIRECTORIES if configured is None else (configured,)
        paths += [f"{directory}/pg_service.conf" for directory in directories]
        for path in paths:
            shown = printable(path)
            text = self.read(path, shown, optional=True)
            if text is not None:
                yield shown, text

    def read(self, path: str, shown: str, *, optional: bool = False) -> str | None:
        """A file's text; None where it is optional and not there."""
        try:
            if optional:
                self.around.files.mode(path)
        except (OSError, ValueError):
            return None
        try:
            return self.around.files.read(path)
        except OSError as exc:
            reason = exc.strerror or "an error"
        except ValueError:
            reason = "not a file's name"
        # Outside of the handler: the error's context would show the path.
        raise DsnError(f"{shown}: can't be read: {reason}")

    def add_environment(self) -> None:
        environ = self.around.environ
        for name, variable in ENVIRONMENT.items():
            if variable in environ:
                self.add(name, environ[variable], variable)
        if environ.get("PGREQUIRESSL", "").startswith("1"):
            self.add("sslmode", "require", "PGREQUIRESSL")

    def ignore(self) -> None:
        """Leave the choice of a host to the manager."""
        for name, (nothing, decides) in _IGNORED.items():
            value = self.values.pop(name, nothing)
            if value != nothing:
                self.warnings.append(f"{self.place(name)}={value} is ignored: {decides}")
        self.values["target_session_attrs"] = "any"
        if "PGLOADBALANCEHOSTS" in self.around.environ:
            # Only here: libpq before 16 does not know the parameter.
            self.values["load_balance_hosts"] = "disable"

    # The password file

    def password_file(self) -> str | None:
        """Its text; None where there is none, or none that may be used."""
        given = self.values.get("passfile")
        if not given and self.around.home is None:
            return None
        path = given or f"{self.around.home}/.pgpass"
        named = f"password file {printable(path)}"
        shown = "passfile" if given and "passfile" not in self.sources else named
        try:
            mode = self.around.files.mode(path)
            if not stat.S_ISREG(mode):
                self.warnings.append(f"{shown} is ignored: it is not a plain file")
            elif mode & (stat.S_IRWXG | stat.S_IRWXO) and sys.platform != "win32":
                self.warnings.append(
                    f"{shown} is ignored: others than its owner have access, it must be 0600 or"
                    " less"
                )
            else:
                return self.around.files.read(path)
        except (OSError, ValueError):
            pass  # as libpq does
        return None

    def with_password(self, target: Target, passwords: PasswordFile) -> Target:
        found = passwords.find(self.as_looked_up(target), target.port)
        return target if found is None else replace(target, password=found)

    def as_looked_up(self, target: Target) -> str:
        """What the file calls the host."""
        host = target.host or target.hostaddr or ""
        return "localhost" if host == self.around.default_host else host
