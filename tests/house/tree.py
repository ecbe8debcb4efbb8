"""The source as syntax trees: what the house laws are checked on, without importing anything."""

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "groupwise"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One file: its dotted name, its text and its tree."""

    path: Path
    name: str
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        """The part of groupwise that it belongs to: `plan` for `groupwise.plan.rule`, empty for the face itself."""
        return self.name.split(".")[1] if "." in self.name else ""

    def at(self, node: ast.AST) -> str:
        """`src/groupwise/plan/rule.py:12`."""
        return f"{self.path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"

    def functions(self) -> Iterator[Function]:
        """Every function, however deep."""
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))

    def imports(self) -> Iterator[tuple[ast.AST, str]]:
        """Every import that can run, as its node and the dotted name imported; TYPE_CHECKING blocks do not count."""
        unseen = _type_checking(self.tree)
        for node in ast.walk(self.tree):
            if id(node) not in unseen:
                yield from ((node, target) for target in self._targets(node))

    def all_imports(self) -> Iterator[str]:
        """The dotted name of every import, those for types alone too."""
        return (target for node in ast.walk(self.tree) for target in self._targets(node))

    def _targets(self, node: ast.AST) -> list[str]:
        match node:
            case ast.Import(names=names):
                return [alias.name for alias in names]
            case ast.ImportFrom(names=names):
                stem = self._stem(node)
                return [f"{stem}.{alias.name}" for alias in names]
            case ast.Call(func=ast.Name(id="import_module" | "__import__"), args=[ast.Constant(value=str(target)), *_]):
                return [target]
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(target)), *_]):
                return [target]
            case _:
                return []

    def _stem(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".") if self.path.name == "__init__.py" else self.name.split(".")[:-1]
        return ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])


def _type_checking(tree: ast.Module) -> set[int]:
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    return {id(inner) for block in blocks for statement in block.body for inner in ast.walk(statement)}


def _parse(path: Path, base: Path) -> Module:
    parts = path.relative_to(base).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    text = path.read_text(encoding="utf-8")
    return Module(path, name, text, ast.parse(text))


@functools.cache
def source() -> tuple[Module, ...]:
    """Every module of `src/groupwise`."""
    return tuple(_parse(path, SOURCE.parent) for path in sorted(SOURCE.rglob("*.py")))


@functools.cache
def suite() -> tuple[Module, ...]:
    """Every module of `tests`."""
    return tuple(_parse(path, ROOT) for path in sorted((ROOT / "tests").rglob("*.py")))


def body_lines(function: Function) -> int:
    """Lines of a body from its first statement to its last, the docstring apart."""
    documented = ast.get_docstring(function, clean=False) is not None and len(function.body) > 1
    first = function.body[1] if documented else function.body[0]
    return (function.end_lineno or first.lineno) - first.lineno + 1
