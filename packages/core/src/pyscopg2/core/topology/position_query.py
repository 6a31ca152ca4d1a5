"""The position query: how far a primary's log is, asked over a user's connection."""

from pyscopg2.core.wal import WalPosition, end_of_record, parse_lsn

POSITION_QUERY = """\
SELECT CASE WHEN in_recovery THEN 'standby' ELSE pg_catalog.concat_ws(' ',
    (SELECT system_identifier FROM pg_catalog.pg_control_system()),
    pg_catalog."left"(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8),
    (SELECT pg_catalog.concat_ws(' ', inserted, file_offset)
     FROM pg_catalog.pg_current_wal_insert_lsn() AS inserted,
          pg_catalog.pg_walfile_name_offset(inserted)),
    pg_catalog.current_setting('wal_block_size')) END
FROM (SELECT pg_catalog.pg_is_in_recovery() AS in_recovery OFFSET 0) AS state"""
"""One round trip, allowed to an unprivileged login (PostgreSQL manual, 9.28 "System Administration
Functions").

Everything that was committed on the connection was inserted into the log before, also where it is
not flushed yet (``synchronous_commit=off``): hence the insert LSN. For the rest, see the notes on
the role query.
"""


def parse_position(text: object) -> WalPosition | None:
    """None: the server is a standby, which commits nothing. `ValueError`: this is no answer."""
    if text == "standby":
        return None
    try:
        system, timeline, insert, offset, block_size = str(text).split(" ")
        lsn = end_of_record(parse_lsn(insert), int(offset), int(block_size))
        return WalPosition(int(system), int(timeline, 16), lsn)
    except ValueError:
        raise ValueError(f"not an answer to the position query: {str(text)[:100]!r}") from None
