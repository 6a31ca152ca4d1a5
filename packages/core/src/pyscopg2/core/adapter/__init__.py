"""The room that adapters enter: what the core asks of a driver, and tools for those who answer."""

from pyscopg2.core.adapter.protocol import (
    Adapter,
    ChecksOptions,
    ClosesPools,
    ConnT,
    CountsIdle,
    EndsBlocks,
    HookError,
    PoolT,
    ReservedConnection,
    Reserves,
    ReturnsEarly,
    RunsTransactions,
    TakesExtraParams,
    TellsLoss,
    TellsRecovery,
)

__all__ = (
    "Adapter",
    "ChecksOptions",
    "ClosesPools",
    "ConnT",
    "CountsIdle",
    "EndsBlocks",
    "HookError",
    "PoolT",
    "ReservedConnection",
    "Reserves",
    "ReturnsEarly",
    "RunsTransactions",
    "TakesExtraParams",
    "TellsLoss",
    "TellsRecovery",
)
