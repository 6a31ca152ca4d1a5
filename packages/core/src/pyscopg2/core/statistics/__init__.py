"""The manager in numbers."""

from pyscopg2.core.diagnosis.standing import Hindrance
from pyscopg2.core.statistics.distribution import BOUNDS, Distribution
from pyscopg2.core.statistics.observer import AcquireObserver
from pyscopg2.core.statistics.stats import HostStats, Stats

__all__ = ("BOUNDS", "AcquireObserver", "Distribution", "Hindrance", "HostStats", "Stats")
