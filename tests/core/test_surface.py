"""The public surface, as it was promised: names, arguments and defaults."""

import inspect
from typing import Any

import pytest

from pyscopg2.balancer_policy import GreedyBalancerPolicy
from pyscopg2.base import BasePoolManager, Settings

REQUIRED = inspect.Parameter.empty

SIGNATURES: dict[str, dict[str, Any]] = {
    "__init__": {
        "dsn": REQUIRED,
        "acquire_timeout": 1.0,
        "refresh_delay": 1.0,
        "refresh_timeout": 1.0,
        "fallback_master": False,
        "master_as_replica_weight": 0.0,
        "balancer_policy": GreedyBalancerPolicy,
        "stopwatch_window_size": 128,
        "pool_factory_kwargs": None,
        "abandon_timeout": 10.0,
        "fencing": True,
        "max_lag": None,
    },
    "acquire": {
        "read_only": False,
        "fallback_master": None,
        "master_as_replica_weight": None,
        "timeout": None,
        "max_lag": None,
        "after": None,
        "patience": None,
        "**kwargs": REQUIRED,
    },
    "acquire_master": {"timeout": None, "**kwargs": REQUIRED},
    "acquire_replica": {
        "fallback_master": None,
        "master_as_replica_weight": None,
        "timeout": None,
        "max_lag": None,
        "after": None,
        "patience": None,
        "**kwargs": REQUIRED,
    },
    "attempts": {
        "read_only": False,
        "fallback_master": None,
        "master_as_replica_weight": None,
        "timeout": 30.0,
        "max_lag": None,
        "after": None,
        "patience": None,
        "idempotent": False,
        "**kwargs": REQUIRED,
    },
    "is_lost": {"exc": REQUIRED},
    "release": {"connection": REQUIRED, "**kwargs": REQUIRED},
    "close": {"timeout": 10.0},
    "subscribe": {"listener": REQUIRED},
    "events": {"limit": 1000},
    "stats": {},
    "record_times": {},
    "observe": {"observer": REQUIRED},
    "explain": {
        "read_only": False,
        "fallback_master": None,
        "max_lag": None,
        "after": None,
    },
    "terminate": {},
    "ready": {"masters_count": None, "replicas_count": None, "timeout": 10},
    "wait_next_pool_check": {"timeout": 10},
    "wait_all_ready": {},
    "wait_masters_ready": {"masters_count": REQUIRED},
    "wait_replicas_ready": {"replicas_count": REQUIRED},
    "get_pool": {"read_only": REQUIRED, "fallback_master": None},
    "get_master_pools": {},
    "get_replica_pools": {"fallback_master": None},
    "pool_is_master": {"pool": REQUIRED},
    "pool_is_replica": {"pool": REQUIRED},
    "get_pool_freesize": {"pool": REQUIRED},
    "is_connection_closed": {"connection": REQUIRED},
    "acquire_from_pool": {"pool": REQUIRED, "**kwargs": REQUIRED},
    "release_to_pool": {"connection": REQUIRED, "pool": REQUIRED, "**kwargs": REQUIRED},
    "get_last_response_time": {"pool": REQUIRED},
    "register_connection": {"connection": REQUIRED, "pool": REQUIRED},
    "wal_position": {"connection": REQUIRED},
    "causal": {"after": None},
    "forget": {"address": REQUIRED},
}

PROPERTIES = [
    "check_context",
    "is_closed",
    "targets",
    "topology",
    "master_pool_count",
    "replica_pool_count",
    "available_pool_count",
    "pools",
    "dsn",
    "database",
    "loop",
    "refresh_timeout",
    "pool_factory_kwargs",
]


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments_have_the_promised_names_order_and_defaults(name: str) -> None:
    parameters = inspect.signature(getattr(BasePoolManager, name)).parameters
    found = [
        (f"**{name}" if parameter.kind is parameter.VAR_KEYWORD else name, parameter.default)
        for name, parameter in parameters.items()
        if name != "self"
    ]
    assert found == list(SIGNATURES[name].items())


def test_what_came_later_is_given_by_name() -> None:
    for name in SIGNATURES.keys() - {"causal"}:
        parameters = inspect.signature(getattr(BasePoolManager, name)).parameters
        by_name = {each.name for each in parameters.values() if each.kind is each.KEYWORD_ONLY}
        assert by_name == {"max_lag", "after", "patience", "idempotent"} & parameters.keys()


def test_settings_are_the_managers_arguments() -> None:
    parameters = inspect.signature(BasePoolManager).parameters.values()
    arguments = {each.name: each.annotation for each in parameters}
    del arguments["dsn"]
    assert Settings.__annotations__ == arguments


@pytest.mark.parametrize("name", PROPERTIES)
def test_properties_are_read_only(name: str) -> None:
    found = getattr(BasePoolManager, name)
    assert isinstance(found, property)
    assert found.fset is None


def test_there_are_no_other_public_names() -> None:
    public = {name for name in dir(BasePoolManager) if not name.startswith("_")}
    # `adapters` is for the adapters' managers.
    assert public == SIGNATURES.keys() - {"__init__"} | {*PROPERTIES, "adapters"}
