"""Conditions on a row as text, in a small part of Python's syntax; parsed, never evaluated by Python.

`10 < num <= 30 and text != 'nothing' and __dj__meta__.a in [1, 2]`: comparisons, also chained, `and`,
`or`, `not`, signs, constants, lists, tuples and sets of them, columns by their names, and levels below
them after a dot. A missing value fails every comparison but `not in`.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Condition", "names_in", "parse_condition"]

Condition = Callable[[Mapping[str, Any]], Any]

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}
_SIGNS: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_COLLECTIONS: dict[type[ast.expr], Callable[[Any], Any]] = {ast.List: list, ast.Tuple: tuple, ast.Set: set}


def parse_condition(text: str) -> Condition:
    """A function from a row to the condition's value.

    Raises:
        ValueError: it is no expression, or uses syntax that conditions do not have.
    """
    return _compile(_parse(text))


def names_in(text: str) -> list[str]:
    """The columns that a condition names."""
    return sorted({node.id for node in ast.walk(_parse(text)) if isinstance(node, ast.Name)})


def _parse(text: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"not a condition: {error.msg} at column {error.offset}") from error


def _compile(node: ast.expr) -> Condition:
    match node:
        case ast.BoolOp(op=op, values=values):
            parts = [_compile(value) for value in values]
            decide = all if isinstance(op, ast.And) else any
            return lambda row: decide(part(row) for part in parts)
        case ast.Compare():
            return _comparison(node)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _SIGNS:
            sign, value = _SIGNS[type(op)], _compile(operand)
            return lambda row: sign(value(row))
        case ast.Name(id=name):
            return lambda row: row.get(name)
        case ast.Attribute(value=owner, attr=name):
            level = _compile(owner)
            return lambda row: found.get(name) if isinstance(found := level(row), Mapping) else None
        case ast.Constant(value=constant):
            return lambda row: constant
        case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
            collect, items = _COLLECTIONS[type(node)], [_compile(element) for element in elements]
            return lambda row: collect(item(row) for item in items)
    raise ValueError(f"a condition cannot hold `{ast.unparse(node)}` (use comparisons, and, or, not)")


def _comparison(node: ast.Compare) -> Condition:
    unknown = [op for op in node.ops if type(op) not in _COMPARISONS]
    if unknown:
        raise ValueError(f"a condition cannot hold `{ast.unparse(node)}` (use == and !=)")
    operands = [_compile(operand) for operand in (node.left, *node.comparators)]
    ops = [type(op) for op in node.ops]

    def compare(row: Mapping[str, Any]) -> bool:
        values = [operand(row) for operand in operands]
        for op, left, right in zip(ops, values, values[1:], strict=False):
            if left is None or right is None:
                return op is ast.NotIn
            if not _COMPARISONS[op](left, right):
                return False
        return True

    return compare
