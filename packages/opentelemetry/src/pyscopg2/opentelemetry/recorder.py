"""What each acquire records: histograms."""

from opentelemetry.metrics import Histogram, Meter
from pyscopg2.core.statistics import BOUNDS
from pyscopg2.opentelemetry import conventions
from pyscopg2.opentelemetry.names import Names


class Recorder:
    """An `AcquireObserver`."""

    def __init__(self, meter: Meter, names: Names, *, record_free: bool) -> None:
        def histogram(name: str, description: str) -> Histogram:
            return meter.create_histogram(
                name, "s", description, explicit_bucket_boundaries_advisory=BOUNDS
            )

        self._attributes = {
            address: {conventions.POOL_NAME: name} for address, name in names.hosts.items()
        }
        self._record_free = record_free
        self._wait = histogram(conventions.WAIT_TIME, "How long acquires took").record
        self._use = histogram(conventions.USE_TIME, "How long users had connections").record
        self._create = histogram(
            conventions.CREATE_TIME,
            "How long the driver took for an acquire for which it had no connection at once",
        ).record

    def acquired(self, address: str, seconds: float, waited: bool) -> None:
        if waited or self._record_free:
            self._wait(seconds, self._attributes[address])

    def failed(self, seconds: float, error: BaseException) -> None:
        """It has no connection, and no pool: `db.client.connection.timeouts` counts it."""

    def connected(self, address: str, seconds: float) -> None:
        self._create(seconds, self._attributes[address])

    def released(self, address: str, seconds: float) -> None:
        self._use(seconds, self._attributes[address])
