"""What Python files define at module level, found by parsing them; nothing is imported or executed.

Runs as a program of its own (`python -I -S module_facts.py`), because a hostile file can crash the
parser itself: it reads `{"directory": …, "files": […]}` on stdin and writes the facts as JSON. It
imports nothing of the platform.
"""

import ast
import json
import os
import resource
import sys
import warnings
from collections.abc import Iterator

FILE_BYTES_MAX = 4 * 1024 * 1024
_MEMORY_BYTES_MAX = 2 * 1024**3
_CPU_S_MAX = 20
# Decorators that leave a function's parameters as they are; of any other nothing is known.
_TRANSPARENT = frozenset({"no_grad", "inference_mode", "lru_cache", "cache", "njit", "jit", "compile"})
_REFLECTION = frozenset({"exec", "globals", "setattr", "vars", "locals"})

Signature = dict[str, object] | None


def facts_of(source: bytes) -> dict[str, object]:
    """The names that a module defines: `{"names": {name: signature | None}, "open": bool}`, or `{"error": …}`.

    A signature is None where parameters cannot be known; `open` says that a star import may define more.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        return {"error": f"{where}{error.msg}"}
    except (ValueError, RecursionError, MemoryError) as error:
        return {"error": f"it cannot be parsed ({type(error).__name__}: {error})"}
    return {"names": _names(tree), "open": _may_define_more(tree)}


def _names(tree: ast.Module) -> dict[str, Signature]:
    names: dict[str, Signature] = {}
    for node, is_certain in _module_level(tree.body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found: dict[str, Signature] = {node.name: _signature(node.args) if _keeps_signature(node) else None}
        elif isinstance(node, ast.ClassDef):
            found = {node.name: None}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found = {alias.asname or alias.name.partition(".")[0]: None for alias in node.names}
        else:
            found = _assigned(node)
        for name, signature in found.items():
            # Of two definitions in branches, either may be the one in force.
            names[name] = signature if is_certain or names.get(name, signature) == signature else None
    return names


def _may_define_more(tree: ast.Module) -> bool:
    """Whether names may exist that no statement spells out: by a star import, or by reflection."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            return True
        if isinstance(node, ast.Name) and node.id in _REFLECTION:
            return True
    return any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body)


def _module_level(body: list[ast.stmt], is_certain: bool = True) -> Iterator[tuple[ast.stmt, bool]]:
    """The statements that run when the module is imported, and whether each surely does."""
    for node in body:
        yield node, is_certain
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        blocks = [getattr(node, field, []) for field in ("body", "orelse", "finalbody")]
        blocks += [inner.body for inner in (*getattr(node, "handlers", []), *getattr(node, "cases", []))]
        for block in blocks:
            yield from _module_level(block, is_certain and isinstance(node, ast.With))


def _keeps_signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    for decorator in node.decorator_list:
        target = decorator.func if isinstance(decorator, ast.Call) else decorator
        name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
        if name not in _TRANSPARENT:
            return False
    return True


def _assigned(node: ast.stmt) -> dict[str, Signature]:
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda) and isinstance(node.targets[0], ast.Name):
        return {node.targets[0].id: _signature(node.value.args)}
    # Of a statement with blocks only its head counts: the blocks are looked at by themselves.
    heads: list[ast.AST | None] = [node]
    if isinstance(node, ast.For | ast.AsyncFor):
        heads = [node.target]
    elif isinstance(node, ast.With | ast.AsyncWith):
        heads = [item.optional_vars for item in node.items]
    elif hasattr(node, "body") or hasattr(node, "cases"):
        heads = [getattr(node, "test", None)]
    inside = (inner for head in heads if head is not None for inner in ast.walk(head))
    return {inner.id: None for inner in inside if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)}


def _signature(arguments: ast.arguments) -> dict[str, object]:
    by_position = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    return {
        "positional_only": [argument.arg for argument in arguments.posonlyargs],
        "by_position": by_position,
        "with_default": by_position[len(by_position) - len(arguments.defaults) :]
        + [a.arg for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default],
        "keyword_only": [argument.arg for argument in arguments.kwonlyargs],
        "more_positional": arguments.vararg is not None,
        "more_keywords": arguments.kwarg is not None,
    }


def _read(path: str) -> dict[str, object]:
    with open(path, "rb") as file:
        source = file.read(FILE_BYTES_MAX + 1)
    if len(source) > FILE_BYTES_MAX:
        return {"error": f"it is larger than {FILE_BYTES_MAX // 1024**2} MB"}
    return facts_of(source)


def main() -> None:
    """Answer the question on stdin."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES_MAX, _MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S_MAX, _CPU_S_MAX))
    question = json.load(sys.stdin)
    facts = {file: _read(os.path.join(question["directory"], file)) for file in question["files"]}
    json.dump(facts, sys.stdout)


if __name__ == "__main__":
    main()
