"""Text -> one `Target` per host, by the text alone."""

from collections.abc import Container, Iterable

from pyscopg2.core.dsn.grammar import is_misread, read_values
from pyscopg2.core.dsn.hosts import make_targets
from pyscopg2.core.dsn.target import Target


def parse_dsn(
    text: str, *, extra_params: bool | Container[str] = False, schemes: Iterable[str] = ()
) -> tuple[Target, ...]:
    """Read a libpq URI or keyword/value string; at least one target, in order, no duplicates.

    ``schemes`` are what a URI may begin with beside libpq's ``postgresql://`` and ``postgres://``.
    ``extra_params`` allows parameters that libpq does not know: all of them, or those contained.
    Parameters are not interpreted, `target_session_attrs` and `load_balance_hosts` included; only
    ``ssl=true`` (in a URI) and ``requiressl`` become ``sslmode``, as in libpq.

    `TypeError`: not a `str`. `DsnError`: libpq would refuse the text, now or when it came to
    connect to that host. Its message names the place, positions counted from 1, and never quotes
    the text.
    """
    values = read_values(text, extra_params=extra_params, schemes=schemes)
    return make_targets(values, misread=is_misread(text))
