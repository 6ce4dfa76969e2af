"""Reads what the source says of a class's fields: the string under a field explains it to users."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap


def field_docs(owner: type) -> dict[str, str]:
    """Return the explanation of each field that has one. Raises OSError where only compiled modules are installed."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for pair in itertools.pairwise(tree.body):
        match pair:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = " ".join(text.split())
    return found
