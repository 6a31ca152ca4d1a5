"""The command line: arguments in, an exit code out."""

import io
import json
import logging
import sys
import traceback

import click

from pyscopg2.cli.check.cluster_check import check_cluster
from pyscopg2.cli.exit_code import ExitCode
from pyscopg2.cli.running import run
from pyscopg2.cli.source import dsn_of
from pyscopg2.cli.status import ask_status
from pyscopg2.cli.views.check_view import show_report
from pyscopg2.cli.views.status_view import show_status
from pyscopg2.cli.views.tables import make_console
from pyscopg2.cli.watch import watch

_DSN = click.argument("dsn", nargs=-1, metavar="[DSN]")

_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")

_EPILOG = """Without a DSN, it is taken from PYSCOPG2_DSN, or else from where libpq takes it: PGHOST
and its like, PGSERVICE with the service file, the password file."""


class _Commands(click.Group):
    """A group that repeats nothing of what it does not know: it may be a DSN, with its password."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"no such command: there are {', '.join(self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, epilog=_EPILOG)
@click.version_option(package_name="pyscopg2-cli")
def pyscopg2() -> None:
    """What is wrong with a PostgreSQL cluster, and what it does just now."""
    # A manager's log says what is shown here anyway.
    logging.getLogger().addHandler(logging.NullHandler())


@pyscopg2.command(epilog=_EPILOG)
@_DSN
@_JSON
def check(dsn: tuple[str, ...], as_json: bool) -> None:
    """Look at each host, and name what is wrong, with the step that mends it.

    Takes 3 seconds at most. Exit codes: 0 nothing is wrong, 3 there are warnings, 4 there are
    faults, 2 the DSN or an argument can't be used.
    """
    report = run(check_cluster(dsn_of(dsn)))
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        make_console().print(show_report(report))
    sys.exit(report.exit_code)


@pyscopg2.command(epilog=_EPILOG)
@_DSN
@_JSON
def status(dsn: tuple[str, ...], as_json: bool) -> None:
    """Show each host as a manager sees it after one look.

    Exit codes: 0 there is a master, 4 there is none, 2 the DSN or an argument can't be used.
    """
    seen = run(ask_status(dsn_of(dsn)))
    if as_json:
        click.echo(json.dumps(seen.as_dict(), indent=2))
    else:
        console = make_console()
        console.print(show_status(seen, console.width))
    sys.exit(seen.exit_code)


@pyscopg2.command("watch", epilog=_EPILOG)
@_DSN
@click.option(
    "--every",
    type=click.FloatRange(min=0.05),
    default=1.0,
    show_default=True,
    help="Seconds from one check of a host to the next, while nothing is suspected.",
)
@click.option(
    "--for", "duration", type=click.FloatRange(min=0), help="End by itself after so many seconds."
)
def watch_command(dsn: tuple[str, ...], every: float, duration: float | None) -> None:
    """Show roles, response times, lags and events as they happen. Ctrl-C ends it.

    Where the output is no terminal: a line for each event. Exit codes: 0 it was ended, 2 the DSN or
    an argument can't be used.
    """
    run(watch(dsn_of(dsn), make_console(), refresh_delay=every, duration=duration))
    sys.exit(ExitCode.FINE)


def main() -> None:
    """The console script. An error that nobody expected is told without its text, which may quote a
    secret."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal of another encoding gets `?` for what it does not have.
            stream.reconfigure(errors="replace")
    try:
        pyscopg2()
    except Exception as exc:
        places = "".join(traceback.format_tb(exc.__traceback__))
        print(f"{places}pyscopg2: unexpected {type(exc).__name__}", file=sys.stderr)
        sys.exit(1)
