"""What a check can find, how bad it is, and what mends it: every kind stands here."""

import enum
from dataclasses import dataclass


class Severity(enum.Enum):
    """From the worst to the least."""

    FAULT = "fault"
    """Something does not work."""
    WARNING = "warning"
    """It works, and will surprise somebody."""
    NOTE = "note"
    """Good to know."""


class Kind(enum.Enum):
    """What was found: a name for programs, how bad it is, and the step that mends it."""

    # The way to a host
    NAME_UNKNOWN = (
        "name-unknown",
        Severity.FAULT,
        "Look for a slip in the host's name. Then ask for it on this machine: getent hosts NAME.",
    )
    NAME_UNANSWERED = (
        "name-unanswered",
        Severity.FAULT,
        "This machine's DNS does not answer in time: see its resolver (/etc/resolv.conf).",
    )
    REFUSED = (
        "refused",
        Severity.FAULT,
        "Start the server, or mend the port. If it runs, see its listen_addresses.",
    )
    UNREACHABLE = (
        "unreachable",
        Severity.FAULT,
        "The machine is down, or a firewall or a route is in the way: try from its own network.",
    )
    FROZEN = (
        "frozen",
        Severity.FAULT,
        (
            "The machine accepts connections, and the server says nothing. See its load, its"
            " disk, and whether its processes are stopped; fail over if that lasts."
        ),
    )
    CLOSED = (
        "closed",
        Severity.FAULT,
        "What listens there hangs up: a balancer with no server behind it, or a firewall.",
    )
    OTHER_SERVICE = (
        "other-service",
        Severity.FAULT,
        "Something listens there that does not speak PostgreSQL's protocol: mend the port.",
    )

    # TLS
    TLS_REFUSED = (
        "tls-refused",
        Severity.FAULT,
        "The DSN demands TLS, and the server has none: set ssl = on there, with a certificate.",
    )
    TLS_DEMANDED = (
        "tls-demanded",
        Severity.FAULT,
        (
            "The server takes encrypted connections only: put sslmode=require, or better"
            " sslmode=verify-full, into the DSN."
        ),
    )
    CERTIFICATE = (
        "certificate",
        Severity.FAULT,
        (
            "The server's certificate is not one to trust under this name. Mend it, or the"
            " host's name in the DSN, or the authority that sslrootcert names. To lower sslmode"
            " only hides it."
        ),
    )
    CLIENT_CERTIFICATE = (
        "client-certificate",
        Severity.FAULT,
        "The server wants a certificate of the client's: put sslcert and sslkey into the DSN.",
    )
    TLS_FAILED = (
        "tls-failed",
        Severity.FAULT,
        (
            "The two sides agree on no TLS: see ssl_min_protocol_version of both, and the"
            " server's log."
        ),
    )

    # The login
    PARAMETER = (
        "parameter",
        Severity.FAULT,
        "A parameter of the DSN can't be used: mend it, or the file that it names.",
    )
    PASSWORD = (
        "password",
        Severity.FAULT,
        (
            "User and password do not fit. See where the password comes from (DSN, environment,"
            " password file), and try psql with it."
        ),
    )
    LOGIN_REFUSED = (
        "login-refused",
        Severity.FAULT,
        (
            "See pg_hba.conf for this client's address, user and database, and that the role"
            " has LOGIN."
        ),
    )
    DATABASE_UNKNOWN = (
        "database-unknown",
        Severity.FAULT,
        "Mend the database's name in the DSN, or create it. Without one it is the user's name.",
    )
    DATABASE_REFUSED = (
        "database-refused",
        Severity.FAULT,
        "GRANT CONNECT ON DATABASE … TO this role.",
    )
    FULL = (
        "full",
        Severity.FAULT,
        (
            "The server has no connection left: see pg_stat_activity, and hosts * (max_size +"
            " 1) of each process against max_connections."
        ),
    )
    NOT_READY = (
        "not-ready",
        Severity.FAULT,
        "The server starts, recovers or shuts down: see its log. A standby needs hot_standby = on.",
    )
    LOGIN_UNANSWERED = (
        "login-unanswered",
        Severity.FAULT,
        (
            "The server begins to speak, and does not finish: see its load, the service that it"
            " asks for logins (LDAP, PAM), and a pooler that waits for a server."
        ),
    )
    LOGIN_FAILED = (
        "login-failed",
        Severity.FAULT,
        "See the server's log, or the pooler's, at this moment.",
    )
    CHECK_FAILED = (
        "check-failed",
        Severity.FAULT,
        "Its checks fail, though nothing else was found: see the server's log at this moment.",
    )

    # What the login may, and what stands between
    NO_TIMELINE = (
        "no-timeline",
        Severity.WARNING,
        (
            "The server refuses functions of its log (some clouds do): a master that was"
            " replaced is not recognised, and reads with bounds are served by the master alone."
            " Where it is your server: GRANT EXECUTE on pg_control_system() and its like."
        ),
    )
    NO_PG_MONITOR = (
        "no-pg-monitor",
        Severity.NOTE,
        (
            "GRANT pg_read_all_stats (or pg_monitor) TO this role. Without it a replica serves"
            " no reads with bounds for some seconds after a failover; all else is as it should"
            " be."
        ),
    )
    POOLER_TRANSACTION = (
        "pooler-transaction",
        Severity.WARNING,
        (
            "Prepare nothing behind it: asyncpg statement_cache_size=0, psycopg"
            " prepare_threshold=None. Session settings, advisory locks and LISTEN do not last"
            " there either."
        ),
    )
    POOLER = (
        "pooler",
        Severity.NOTE,
        "For PgBouncer set server_login_retry = 1, or a host that is back stays hidden for 15 s.",
    )
    POOLER_ALONE = (
        "pooler-alone",
        Severity.FAULT,
        (
            "The pooler answers, and reaches no server: see whether that runs, and the pooler's"
            " log. PgBouncer says so for server_login_retry after its server is back: set it to 1."
        ),
    )

    # What a server is like
    READ_ONLY_LOGIN = (
        "read-only-login",
        Severity.WARNING,
        (
            "Writes of this login fail: ALTER ROLE … RESET default_transaction_read_only (or"
            " ALTER DATABASE …, or take it out of the DSN), or BEGIN READ WRITE."
        ),
    )
    READ_ONLY_SERVER = (
        "read-only-server",
        Severity.WARNING,
        (
            "A primary that takes no writes serves reads only. To change it: ALTER SYSTEM RESET"
            " default_transaction_read_only, then SELECT pg_reload_conf()."
        ),
    )
    RECEIVES_NOTHING = (
        "receives-nothing",
        Severity.WARNING,
        (
            "The standby streams from nobody, and falls behind: see its primary_conninfo and"
            " its log. One that is fed from an archive alone is always so."
        ),
    )
    REPLAY_PAUSED = (
        "replay-paused",
        Severity.WARNING,
        "SELECT pg_wal_replay_resume() on the standby.",
    )
    BEHIND = (
        "behind",
        Severity.WARNING,
        "See the standby's load and long queries on it. Reads that mind pass max_lag.",
    )
    CLOCK = (
        "clock",
        Severity.WARNING,
        (
            "Have both machines' clocks set by NTP. Logs will not fit each other, and tokens of"
            " pyscopg2-asgi are ignored where two web servers differ by 5 s."
        ),
    )

    # All hosts together
    NO_MASTER = (
        "no-master",
        Severity.FAULT,
        "Nobody can write. See the faults of the hosts that do not answer; or promote a standby.",
    )
    ONLY_STANDBYS = (
        "only-standbys",
        Severity.FAULT,
        (
            "The primary is missing in the DSN, or there is none: add it, or promote a standby."
            " For a program that only reads this is fine."
        ),
    )
    NO_REPLICA = (
        "no-replica",
        Severity.NOTE,
        "Reads from replicas time out, unless they may go to the master: fallback_master=True.",
    )
    SUPERSEDED = (
        "superseded",
        Severity.FAULT,
        (
            "An old master still takes writes, which will be lost: stop it, then rejoin it as a"
            " replica (pg_rewind). If the newer one is gone for good: manager.forget(address)."
        ),
    )
    TWO_MASTERS = (
        "two-masters",
        Severity.FAULT,
        "Two primaries on one timeline can't both be right: stop one of them, and make it anew.",
    )
    ONE_SERVER_TWICE = (
        "one-server-twice",
        Severity.WARNING,
        "Take one of the addresses out of the DSN.",
    )
    OTHER_CLUSTER = (
        "other-cluster",
        Severity.FAULT,
        (
            "Another cluster's server answers at this address: give it its own server back, or"
            " take it out of the DSN."
        ),
    )

    # The check itself
    IGNORED = (
        "ignored",
        Severity.NOTE,
        "Nothing needs to be done, if that is what you want.",
    )
    OUT_OF_TIME = (
        "out-of-time",
        Severity.WARNING,
        "The host was not looked at in full: see the network's round trip, and the host's load.",
    )

    def __init__(self, label: str, severity: Severity, remedy: str) -> None:
        self.label = label
        self.severity = severity
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found, of a host or of all together."""

    kind: Kind
    text: str
    """What was seen, in words. No secrets."""
    address: str | None = None
    """The host's; None: of all together."""

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "kind": self.kind.label,
            "severity": self.kind.severity.value,
            "address": self.address,
            "text": self.text,
            "remedy": self.kind.remedy,
        }
