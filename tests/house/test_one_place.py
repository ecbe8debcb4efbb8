"""What is relied upon, written or shared in one place alone."""

import ast
import re

from tests.house.tree import Module, source

KERAS = re.compile(
    r"keras\.src|_backend_\w+|_clip_gradients|_apply_weight_decay|_get_variable_index|_flatten_layers|_iterations|"
    r"_trainable_variables|_learning_rate\b|_optimizer_map|_use_weight_decay|_exclude_from\w+"
)


def places(pattern: str, *but: str) -> list[str]:
    """Every module but these whose code has a match."""
    found = re.compile(pattern)
    return [module.name for module in source() if found.search(code_of(module)) and module.name not in but]


def code_of(module: Module) -> str:
    """The module without docstrings and comments."""
    return ast.unparse(_without_docstrings(ast.parse(module.text)))


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [  # type: ignore[attr-defined]
                part for part in body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
            ] or [ast.Pass()]
    return tree


def test_files_are_replaced_by_one_writer() -> None:
    assert places(r"os\.(replace|rename|link)\b|mkstemp|NamedTemporaryFile", "groupwise._atomic") == []


def test_the_names_of_wrappers_stand_in_one_list() -> None:
    assert places(r"_orig_mod|_fsdp_wrapped_module", "groupwise._wrappers") == []


def test_ranks_exchange_through_one_file() -> None:
    calls = r"(all_reduce|all_gather\w*|dist\.broadcast\w*|barrier)\("
    exchanges = calls + r"|dist\.is_initialized|compare_set|default_store"
    of_one_process = "groupwise.keras._keras"  # tensorflow's devices, not ranks
    assert places(exchanges, "groupwise._ranks", "groupwise._torch", of_one_process) == []


def test_what_a_sharded_tensor_is_stands_in_one_file() -> None:
    assert places(r"'device_mesh', None\) is|== 'DTensor'|isinstance\(\w+, DTensor", "groupwise._shards") == []


def test_private_modules_of_torch_are_imported_in_one_file() -> None:
    assert places(r"(from|import) torch(\.\w+)*\._|from torch(\.\w+)* import _", "groupwise._torch") == []


def test_text_is_read_as_a_number_in_one_place() -> None:
    assert places(r"except ValueError:\n\s+return (value|text|data)\b", "groupwise._spelling") == []


def test_private_names_of_keras_stand_in_one_file() -> None:
    used = {module.name: set(KERAS.findall(code_of(module))) for module in source() if module.package == "keras"}
    assert {name: found for name, found in used.items() if found and name != "groupwise.keras._keras"} == {}
