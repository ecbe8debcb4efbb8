"""The rules of the house, read from the syntax trees: short files, short bodies, docstrings, no back doors."""

import ast
from collections.abc import Iterable

from tests.house.tree import Module, body_lines, source, suite

LONGEST_FILE = 500
LONGEST_BODY = 40
USUAL_BODY = 20
FORBIDDEN_CALLS = {"print", "hasattr", "eval", "exec"}


def nothing(found: Iterable[str]) -> None:
    """Fail with every finding on a line of its own."""
    listed = list(found)
    assert not listed, "\n" + "\n".join(listed)


def test_no_file_is_longer_than_500_lines() -> None:
    lengths = {module.path: len(module.text.splitlines()) for module in source()}
    nothing(f"{path}: {length} lines" for path, length in lengths.items() if length > LONGEST_FILE)


def test_no_body_is_longer_than_40_lines() -> None:
    nothing(
        f"{module.at(function)}: {function.name} has {body_lines(function)} lines"
        for module in source()
        for function in module.functions()
        if body_lines(function) > LONGEST_BODY
    )


def test_nine_bodies_in_ten_have_at_most_20_lines() -> None:
    bodies = sorted(body_lines(function) for module in source() for function in module.functions())
    short = sum(length <= USUAL_BODY for length in bodies)
    assert short >= 0.9 * len(bodies), f"{short} of {len(bodies)} bodies"


def test_no_assert() -> None:
    nothing(module.at(node) for module in source() for node in ast.walk(module.tree) if isinstance(node, ast.Assert))


def test_no_print_hasattr_eval_or_exec() -> None:
    nothing(
        f"{module.at(node)}: {node.func.id}()"
        for module in source()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS
    )


def test_a_broad_except_hands_on_what_it_caught() -> None:
    nothing(
        f"{module.at(node)}: except {ast.unparse(node.type) if node.type else ''}"
        for module in source()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ExceptHandler) and _broad(node.type) and not _hands_on(node)
    )


def test_every_module_opens_with_its_idea() -> None:
    nothing(str(module.path) for module in source() if not ast.get_docstring(module.tree))


def test_every_public_function_and_class_has_a_docstring() -> None:
    nothing(
        f"{module.at(node)}: {node.name}"
        for module in source()
        for node in module.tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        if not ast.get_docstring(node)
    )


def test_keyword_arguments_are_collected_for_hyperparameters_only_or_passed_through() -> None:
    nothing(
        f"{module.at(function)}: {function.name}(**{function.args.kwarg.arg})"
        for module in source()
        for function in module.functions()
        if function.args.kwarg and function.args.kwarg.arg != "hyperparameters" and not _wraps(function)
    )


def test_every_expected_error_is_matched_by_its_words() -> None:
    nothing(module.at(call) for module in suite() for call in _raises(module) if not _has_match(call))


def _broad(caught: ast.expr | None) -> bool:
    kinds = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(kind is None or ast.unparse(kind) in {"Exception", "BaseException"} for kind in kinds)


def _hands_on(handler: ast.ExceptHandler) -> bool:
    """Whether an `except Exception as error` does something with `error`: raises from it, or tells it."""
    kinds = {"Exception", "(Exception, SystemExit)"}
    named = handler.type is not None and ast.unparse(handler.type) in kinds and handler.name is not None
    inside = (node for statement in handler.body for node in ast.walk(statement))
    return named and any(isinstance(node, ast.Name) and node.id == handler.name for node in inside)


def _wraps(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(decorator).startswith("functools.wraps(") for decorator in function.decorator_list)


def _raises(module: Module) -> Iterable[ast.Call]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"pytest.raises", "raises"}:
            yield node


def _has_match(call: ast.Call) -> bool:
    return any(keyword.arg == "match" for keyword in call.keywords)
