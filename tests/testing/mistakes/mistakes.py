"""Twenty deliberate mistakes, each with the test of the contract that has to find it, and the words
of which its message must have some."""

from dataclasses import dataclass, field
from typing import Any

from tests.testing.mistakes import adapters


@dataclass(frozen=True)
class Mistake:
    """An adapter that is wrong in one thing."""

    name: str
    adapter: type[Any]
    test: str
    """With its parameters, as pytest names it."""
    says: str
    """A pattern for the failure's message."""
    is_slow: bool = False
    """Found by waiting in vain, for some seconds."""
    subject: dict[str, Any] = field(default_factory=dict[str, Any])
    """What its subject has beside the usual."""

    @property
    def suite(self) -> str:
        """The name of its class."""
        return f"Test{self.adapter.__name__}"


_ROOM = "test_a_pool_has_room_for_its_users_and_a_monitor_that_takes_from_it"
_ENDS_QUERY = "test_terminating_a_connection_ends_its_pending_query_at_once"

MISTAKES = (
    Mistake(
        "room only as a number",
        adapters.RoomOnlyAsANumber,
        _ROOM,
        r"get_pool_maxsize\(\) is 4, and acquire_from_pool\(\) did not end .* with 3 taken",
        is_slow=True,
    ),
    Mistake(
        "room as a real limit",
        adapters.RoomAsARealLimit,
        _ROOM,
        r"get_pool_maxsize\(\) is 3 of a pool for 3 users, not 4: the monitor's",
    ),
    Mistake(
        "swallowed cancellation",
        adapters.SwallowsCancellations,
        "test_a_pool_whose_creation_is_cancelled_leaves_nothing",
        r"create_pool\(\) was cancelled, and did not end as cancelled",
    ),
    Mistake(
        "cancelled acquire that succeeds",
        adapters.SucceedsWhenCancelled,
        "test_a_cancelled_acquire_never_succeeds[waiting]",
        r"a cancelled acquire_from_pool\(\) succeeded",
    ),
    Mistake(
        "cancelled query as the driver's error",
        adapters.TellsOfCancellationsAsErrors,
        "test_a_query_that_is_cancelled_is_a_cancellation_and_no_error",
        r"fetch_scalar\(\) was cancelled, and ended in another way: QueryCanceled",
    ),
    Mistake(
        "leaked transaction",
        adapters.LeaksTransactions,
        "test_a_transaction_that_is_left_open_does_not_reach_the_next_user",
        "a transaction is left open",
        is_slow=True,
    ),
    Mistake(
        "terminate that waits",
        adapters.WaitsForTheServerToEnd,
        f"{_ENDS_QUERY}[frozen]",
        r"terminate_connection\(\) has blocked the event loop",
        is_slow=True,
    ),
    Mistake(
        "terminate that only closes the object",
        adapters.OnlyClosesTheObject,
        f"{_ENDS_QUERY}[frozen]",
        r"it waits for fetch_scalar\(\)",
        is_slow=True,
    ),
    Mistake(
        "terminate that comes later",
        adapters.TerminatesLater,
        f"{_ENDS_QUERY}[healthy]",
        r"terminate_connection\(\) comes late",
        is_slow=True,
    ),
    Mistake(
        "terminate_pool that waits",
        adapters.WaitsForUsers,
        "test_terminating_a_pool_waits_for_nobody",
        r"it waits for .*terminate_pool\(\)",
        is_slow=True,
    ),
    Mistake(
        "SQLSTATE from the cause",
        adapters.ReadsTheCause,
        "test_sqlstate_is_that_of_this_very_error",
        r"sqlstate\(\) tells 42883, that of the cause",
    ),
    Mistake(
        "commit on error",
        adapters.CommitsOnErrors,
        "test_a_block_that_raises_keeps_nothing_that_was_not_committed",
        r"end_block\(\) of a block that raised has committed",
    ),
    Mistake(
        "closed connection handed out",
        adapters.HandsOutWhatIsClosed,
        "test_connections_that_broke_while_idle_are_not_handed_out",
        r"acquire_from_pool\(\) hands out a connection that the server has closed",
    ),
    Mistake(
        "connecting in the background",
        adapters.ConnectsInTheBackground,
        "test_a_refused_connect_is_known_when_the_pool_is_created",
        r"success: nobody listens there, and create_pool\(\) is to say so",
    ),
    Mistake(
        "None wrongly",
        adapters.HasNoLimitWhereThereIsOne,
        _ROOM,
        r"get_pool_maxsize\(\) is None, which says that there is no limit",
    ),
    Mistake(
        "double release twice",
        adapters.FreesTwice,
        "test_a_double_release_frees_nothing_twice",
        "two who acquired have been given the same connection",
    ),
    Mistake(
        "parameters dropped",
        adapters.DropsParameters,
        "test_a_pool_demands_what_its_dsn_demands",
        "sslmode=verify-full, and the server has no TLS: this DSN's parameters are dropped",
    ),
    Mistake(
        "options ignored",
        adapters.IgnoresOptions,
        "test_an_unknown_pool_option_is_an_error_at_once",
        r"create_pool\(\) knows no `no_such_option`",
    ),
    Mistake(
        "no look at the socket",
        adapters.DoesNotLookAtTheSocket,
        "test_a_reserved_connection_that_the_server_has_ended_is_known_to_be_closed",
        r"is_closed\(\) does not look at the socket",
    ),
    Mistake(
        "place lost on cancel",
        adapters.LosesItsPlaceWhenCancelled,
        "test_an_interrupted_release_costs_no_slot[once-waiting]",
        r"connections are out|it waits for .*acquire_from_pool\(\)",
        is_slow=True,
    ),
    Mistake(
        "hook run for the monitor",
        adapters.RunsHooksForTheMonitor,
        "test_what_is_reserved_is_no_acquire",
        "the user's hook was run for the monitor's connection",
        subject={"hooks": adapters.at_each_acquire},
    ),
)
