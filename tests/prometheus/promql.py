"""As much of PromQL as the alert rules and the timeline of roles have.

What it does not know is an `AssertionError`.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import promql_parser
from promql_parser import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    VectorSelector,
)
from tests.prometheus.scraping import History, Labels, Vector, without_name

AGGREGATIONS: dict[str, Callable[[list[float]], float]] = {
    "count": len,
    "max": max,
    "min": min,
    "sum": sum,
}
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "==": lambda a, b: a == b,
    ">": lambda a, b: a > b,
}


def parse(text: str) -> Expr:
    """`ValueError`: it is no PromQL."""
    expr: Expr = promql_parser.parse(text)
    return expr


def evaluate(expr: Expr, history: History, at: float) -> Vector:
    """The value of an expression at a time."""
    match expr:
        case ParenExpr():
            return evaluate(expr.expr, history, at)
        case VectorSelector():
            found = history.latest(_name(expr), at).items()
            return {labels: value for labels, value in found if _matches(expr, labels)}
        case AggregateExpr():
            return _aggregate(expr, evaluate(expr.expr, history, at))
        case Call():
            assert expr.func.name == "increase", expr
            (argument,) = expr.args
            return _increase(argument, history, at)
        case BinaryExpr() if isinstance(expr.lhs, NumberLiteral):
            assert str(expr.op) == "*", expr
            right = evaluate(expr.rhs, history, at).items()
            return {without_name(labels): expr.lhs.val * value for labels, value in right}
        case BinaryExpr() if isinstance(expr.rhs, NumberLiteral):
            compare, number = COMPARISONS[str(expr.op)], expr.rhs.val
            values = evaluate(expr.lhs, history, at).items()
            return {labels: value for labels, value in values if compare(value, number)}
        case BinaryExpr():
            left, other = (evaluate(side, history, at) for side in (expr.lhs, expr.rhs))
            return _join(expr, left, other)
        case _:
            raise AssertionError(f"not known here: {expr}")


def _name(selector: VectorSelector) -> str:
    assert selector.name is not None
    return selector.name


def _matches(selector: VectorSelector, labels: Labels) -> bool:
    values = dict(labels)
    for matcher in selector.matchers.matchers:
        value = values.get(matcher.name, "")
        match str(matcher.op):
            case "MatchOp.Equal":
                matched = value == matcher.value
            case "MatchOp.Re":
                matched = re.fullmatch(matcher.value, value) is not None
            case other:
                raise AssertionError(f"not known here: {other}")
        if not matched:
            return False
    return True


def _aggregate(expr: AggregateExpr, vector: Vector) -> Vector:
    assert expr.modifier is not None
    assert str(expr.modifier.type) == "AggModifierType.By"
    groups: defaultdict[Labels, list[float]] = defaultdict(list)
    for labels, value in vector.items():
        group = ((name, value) for name, value in labels if name in expr.modifier.labels)
        groups[frozenset(group)].append(value)
    aggregate = AGGREGATIONS[str(expr.op)]
    return {labels: aggregate(values) for labels, values in groups.items()}


def _increase(argument: Any, history: History, at: float) -> Vector:
    """Without Prometheus' extrapolation to the ends of the range. A value that is less than the one
    before is a new process's."""
    assert isinstance(argument, MatrixSelector)
    selector, after = argument.vector_selector, at - argument.range.total_seconds()
    risen: Vector = {}
    for labels, values in history.between(_name(selector), after, at).items():
        if _matches(selector, labels) and len(values) > 1:
            steps = itertools.pairwise(values)
            risen[without_name(labels)] = sum(b - a if b >= a else b for a, b in steps)
    return risen


def _join(expr: BinaryExpr, left: Vector, right: Vector) -> Vector:
    """One with one, by all labels but those that are ignored."""
    matching = None if expr.modifier is None else expr.modifier.matching
    ignored = {"__name__"}
    if matching is not None:
        assert str(matching.type) == "LabelModifierType.Exclude"
        ignored |= set(matching.labels)

    def key(labels: Labels) -> Labels:
        return frozenset((name, value) for name, value in labels if name not in ignored)

    there = {key(labels): value for labels, value in right.items()}
    match str(expr.op):
        case "or":
            taken = {key(labels) for labels in left}
            return left | {labels: v for labels, v in right.items() if key(labels) not in taken}
        case "unless":
            return {labels: value for labels, value in left.items() if key(labels) not in there}
        case "/":
            keyed = {key(labels): value for labels, value in left.items()}
            assert len(keyed) == len(left)
            assert len(there) == len(right)
            return {labels: keyed[labels] / there[labels] for labels in keyed.keys() & there.keys()}
        case other:
            raise AssertionError(f"not known here: {other}")


def selectors(expr: Expr) -> list[VectorSelector]:
    """All of an expression's."""
    found: list[VectorSelector] = []

    def visit(each: Expr) -> None:
        if isinstance(each, VectorSelector):
            found.append(each)
        elif isinstance(each, MatrixSelector):
            found.append(each.vector_selector)

    promql_parser.walk(expr, visit)
    return found


def labels_used(expr: Expr) -> set[str]:
    """The labels that an expression groups, joins or selects by."""
    found = {each.name for found in selectors(expr) for each in found.matchers.matchers}

    def visit(each: Expr) -> None:
        if isinstance(each, AggregateExpr) and each.modifier is not None:
            found.update(each.modifier.labels)
        elif isinstance(each, BinaryExpr) and each.modifier is not None and each.modifier.matching:
            found.update(each.modifier.matching.labels)

    promql_parser.walk(expr, visit)
    return found


def assert_exported(expr: Expr, exported: Mapping[str, set[str]]) -> None:
    """There are the series that an expression asks for, with the labels that it asks by."""
    found = selectors(expr)
    assert found, expr
    for selector in found:
        labels = exported[_name(selector)]
        assert {each.name for each in selector.matchers.matchers} <= labels, selector
    assert labels_used(expr) <= set().union(*(exported[_name(each)] for each in found)), expr
