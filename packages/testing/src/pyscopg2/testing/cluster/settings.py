"""What a cluster's servers are told when they start, and its own sessions when they connect."""

from collections.abc import Mapping

from pyscopg2.testing.cluster.node import USER, Node
from pyscopg2.testing.cluster.ports import HOST

__all__ = ("own_session", "server_settings")

# What the cluster's own sessions need, whatever the settings say: theirs, or those of a role or a
# database. A standby knows no serializable transactions; a name may be another's in a search_path.
# With each, the first version that has it.
_OWN_SESSION: Mapping[str, tuple[str, int]] = {
    "client_min_messages": ("error", 0),
    "default_transaction_deferrable": ("off", 0),
    "default_transaction_isolation": (r"read\ committed", 0),
    "default_transaction_read_only": ("off", 0),
    "idle_in_transaction_session_timeout": ("0", 0),
    "idle_session_timeout": ("0", 14),
    "lock_timeout": ("0", 0),
    "search_path": ("pg_catalog", 0),
    "statement_timeout": ("0", 0),
    "transaction_timeout": ("0", 17),
}


def own_session(major: int) -> str:
    """For the cluster's own sessions on servers of this version, as libpq's ``options``.

    They win over all that a server, a database or a role says.
    """
    return " ".join(
        f"-c {name}={value}" for name, (value, since) in _OWN_SESSION.items() if since <= major
    )


def server_settings(
    node: Node, upstream: Node | None, *, major: int, password: str, more: Mapping[str, str]
) -> str:
    """The text of a server's settings file; `more` wins over the cluster's own settings.

    `password` is the superuser's, by which the node connects to its upstream, if it has one.
    """
    settings = {
        "listen_addresses": HOST,
        "port": str(node.port),
        "unix_socket_directories": "",
        "cluster_name": node.name,
        "timezone": "UTC",
        "log_timezone": "UTC",
        "lc_messages": "C",
        "lc_monetary": "C",
        "lc_numeric": "C",
        "lc_time": "C",
        "default_text_search_config": "pg_catalog.english",
        "max_connections": "50",
        "shared_buffers": "16MB",
        # Files in the data folder, which end with it; /dev/shm would outlive a SIGKILL.
        "dynamic_shared_memory_type": "mmap",
        "fsync": "off",
        "wal_level": "replica",
        "hot_standby": "on",
        # For pg_rewind; the WAL that is kept, see below, is for it too.
        "wal_log_hints": "on",
        "max_wal_senders": "20",
        "recovery_target_timeline": "latest",
        "wal_retrieve_retry_interval": "100ms",
        "wal_receiver_status_interval": "1s",
        # A primary that shuts down waits so long for a frozen replica.
        "wal_sender_timeout": "10s",
        "wal_receiver_timeout": "10s",
    }
    settings |= {"wal_keep_size": "256MB"} if major >= 13 else {"wal_keep_segments": "16"}
    if major >= 18:
        # No processes of their own for reading.
        settings["io_method"] = "sync"
    if upstream is not None:
        settings["primary_conninfo"] = (
            f"host={upstream.host} port={upstream.port} user={USER} "
            f"password={password} application_name={node.name} "
            f"options={_quoted(own_session(major))}"
        )
    settings.update(more)
    return "".join(f"{name} = {_quoted(value)}\n" for name, value in settings.items())


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
