"""From `package.module:factory` to a model, or to whatever else: import, call without arguments, look what came back.

The code is the caller's, and it is called as it is: a factory that loads weights loads them, one that builds on the
`meta` device costs nothing. Whatever it raises is told with the place, since it is the caller's to mend.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias, TypeGuard

import torch

from groupwise.cli.exit_status import raised
from groupwise.errors import GroupwiseError, unknown

Model: TypeAlias = "torch.nn.Module | Mapping[str, torch.nn.Module | torch.Tensor]"

_NOTHING = object()
_FORM = "package.module:factory, as in models.vit:build"


def load_model(spec: str) -> Model:
    """The model that `spec` names: a module, a class of one, a mapping, or a function that returns any of them.

    Raises `GroupwiseError` if it cannot be imported, if it raises, or if it makes something else.
    """
    where = f"--model {spec}"
    made = load(spec, where)
    if isinstance(made, torch.nn.Module) or _is_networks(made):
        return made
    raise GroupwiseError(
        f"{where}: it gave {kind_of(made)}; "
        "a model is a torch.nn.Module, or a mapping of names to modules or parameters"
    )


def load_example(spec: str) -> Any:
    """The example that `spec` names: a tensor, a tuple, a mapping, a function that makes one, or one of the model.

    A function without arguments is called for the example; one that needs an argument is the example itself. Raises
    `GroupwiseError` if it cannot be imported, or if it raises.
    """
    where = f"--example {spec}"
    path, name = _split(spec, where)
    found = _attribute(where, _imported(where, path), name)
    return found if callable(found) and _required(found) else _made(where, found)


def load_found(spec: str, flag: str) -> object:
    """What `spec` names, as it stands there, not called. Raises `GroupwiseError` if it cannot be imported."""
    where = f"{flag} {spec}"
    path, name = _split(spec, where)
    return _attribute(where, _imported(where, path), name)


def load(spec: str, where: str) -> object:
    """What `spec` names, called if it is a factory; `where` begins every complaint.

    Raises `GroupwiseError` if it cannot be imported, or if it raises.
    """
    path, name = _split(spec, where)
    return _made(where, _attribute(where, _imported(where, path), name))


def _split(spec: str, where: str) -> tuple[str, str]:
    """Module and name."""
    path, colon, name = spec.partition(":")
    if path.endswith(".py") or "/" in path or "\\" in path:
        raise GroupwiseError(f"{where}: name the module, not its file: {_FORM}")
    if not colon or not all(part.isidentifier() for part in [*path.split("."), *name.split(".")]):
        raise GroupwiseError(f"{where}: it must have the form {_FORM}")
    return path, name


@contextlib.contextmanager
def current_directory_first() -> Iterator[None]:
    """Imports look in the current directory before anywhere else."""
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path[:] = before


def _imported(where: str, path: str) -> ModuleType:
    importlib.invalidate_caches()
    with callers_code(f"{where}: importing {path}", missing=path):
        return importlib.import_module(path)


def _attribute(where: str, module: ModuleType, name: str) -> object:
    found: object = module
    with callers_code(f"{where}: looking up {name!r}"):
        for part in name.split("."):
            owner, found = found, getattr(found, part, _NOTHING)
            if found is _NOTHING:
                raise GroupwiseError(f"{where}: {unknown('factory', part, _callables(owner))}")
    return found


def _callables(owner: object) -> list[str]:
    return [name for name in dir(owner) if not name.startswith("_") and callable(getattr(owner, name, None))]


def _made(where: str, found: object) -> object:
    if isinstance(found, torch.nn.Module) or not callable(found):
        return found
    required = _required(found)
    if required:
        raise GroupwiseError(
            f"{where}: it is called without arguments, but needs {', '.join(required)}; "
            "name a function without any that builds the model"
        )
    with callers_code(f"{where}: the factory"):
        return found()


def _required(found: Callable[..., object]) -> list[str]:
    """The arguments that a call cannot leave out; none where there is no signature to tell."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return []
    collecting = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in collecting]


def _is_networks(made: object) -> TypeGuard[Mapping[str, torch.nn.Module | torch.Tensor]]:
    return isinstance(made, Mapping) and all(isinstance(key, str) for key in made)


def kind_of(made: object) -> str:
    """What a factory made, in words."""
    if isinstance(made, ModuleType):
        return "a Python module"
    return "None" if made is None else f"a {type(made).__name__}"


@contextlib.contextmanager
def callers_code(doing: str, missing: str = "") -> Iterator[None]:
    """Tell whatever the caller's code raises, and where, as a `GroupwiseError`; `missing` is a module looked for."""
    try:
        yield
    except GroupwiseError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{missing}.".startswith(f"{error.name}."):
            raise GroupwiseError(
                f"{doing}: there is no module {error.name!r} in the current directory ({Path.cwd()}) "
                "nor among the installed packages"
            ) from error
        raise GroupwiseError(f"{doing} {raised(error)}") from error
