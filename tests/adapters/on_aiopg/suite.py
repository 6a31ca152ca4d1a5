"""What aiopg's two adapters have in common: both hand out connections of `aiopg.Pool`."""

from tests.adapters.on_aiopg.cancellation_suite import CancellationSuite
from tests.adapters.on_aiopg.hook_suite import HookSuite
from tests.adapters.on_aiopg.leftovers_suite import LeftoversSuite
from tests.adapters.on_aiopg.lost_connection_suite import LostConnectionSuite
from tests.adapters.on_aiopg.reserved_suite import ReservedSuite


class AiopgSuite(
    CancellationSuite,
    LostConnectionSuite,
    HookSuite,
    ReservedSuite,
    LeftoversSuite,
):
    """Subclass it with the fixture `driver`."""
