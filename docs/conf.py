"""The documentation site: `make docs` builds it with warnings as errors, `make serve-docs` shows it.

The pages are plain Markdown that GitHub shows as well. Their order is that of the tables of `index.md`, which a test
holds complete; here they become the side bar. The reference is made from the docstrings of what each `__all__` names.
"""

import os
import re
import shutil
import tomllib
from importlib import import_module
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

os.environ.setdefault("KERAS_BACKEND", "torch")  # the reference of groupwise.keras is the same on each backend

DOCS = Path(__file__).parent
MODULES = [
    "groupwise",
    *(f"groupwise.{name}" for name in ("select", "schedules", "plan", "optim", "checkpoint", "integrations", "keras")),
    *(
        f"groupwise.{name}"
        for name in ("balance", "observe", "observe.sinks", "audit", "probing", "report", "records", "presets")
    ),
    "groupwise.adopt",
    "groupwise.testing",
]

project = "groupwise"
author = "the groupwise authors"
release = version = installed("groupwise")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb", ".rst": "restructuredtext"}
nb_execution_mode = "force"  # the pages show what the notebooks print now
nb_execution_raise_on_error = True
nb_execution_timeout = 900  # half a minute on a quiet machine
nb_merge_streams = True
exclude_patterns = ["_build", "jupyter_execute"]
suppress_warnings = ["misc.highlighting_failure"]  # a console block holds what a command printed, which is no shell
default_role = "literal"  # docstrings write names as `name`
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]

html_theme = "furo"
html_title = f"groupwise {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = html_show_copyright = False
html_math_renderer = "mathml"  # by the browser itself: pages ask the network for nothing
copybutton_prompt_text = "$ "

autodoc_member_order = "bysource"
python_maximum_signature_line_length = 100
napoleon_numpy_docstring = False

SEARCHED: dict[str, list[str]] = tomllib.loads((DOCS / "searched.toml").read_text(encoding="utf-8"))

_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_PAGE = re.compile(r"^\| \[[^\]]+\]\(([\w./-]+)\.(?:md|ipynb)\)", re.MULTILINE)
_EXAMPLE = re.compile(r"\]\(\.\./examples/(\w+)/README\.md\)")
_SECTION_OF_DOCSTRING = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Example|Examples|Note|Warns):$")
_BAR = re.compile(r"\|(?=[^`]*(?:`[^`]*`[^`]*)*$)")  # outside of backticks
_ANNOTATED = re.compile(r"~?[\w.]*\bAnnotated\[")
_NO_LITERAL = re.compile(r"<(?:[^<>]|<[^<>]*>)*>")  # a default whose repr is no Python: <factory>, <function f at 0x…>


def _with_contents(_: Sphinx, name: str, source: list[str]) -> None:
    """Append to the map of the pages a table of contents for each of its sections, and one of the reference."""
    if name != "index":
        return
    _before, *parts = _SECTION.split(source[0])
    for caption, text in zip(parts[::2], parts[1::2], strict=True):
        source[0] += _contents(caption, _PAGE.findall(text))
    source[0] += _contents("Reference", [f"reference/{name}" for name in MODULES])


def _with_examples(_: Sphinx, name: str, source: list[str]) -> None:
    """Append to the gallery the README of each example that it links to, and lead the links of all pages there."""
    page = "" if name == "gallery" else "gallery.md"
    for example in dict.fromkeys(_EXAMPLE.findall(source[0])):
        text = (DOCS.parent / "examples" / example / "README.md").read_text(encoding="utf-8")
        anchor = re.sub(r"[^\w\- ]", "", text.partition("\n")[0].removeprefix("# ").lower()).replace(" ", "-")
        source[0] = source[0].replace(f"../examples/{example}/README.md", f"{page}#{anchor}")
        if not page:
            text = re.sub(r"\]\((?![a-z]+:|#|\.\./)", f"](../examples/{example}/", text)
            text = text.replace("](../../docs/", "](").replace("](../../", "](../")
            source[0] += "\n" + re.sub(r"(^|(?<=\n\n))(?=#+ )", "#", text)


def _with_searched(_: Sphinx, name: str, source: list[str]) -> None:
    """Put what a page is searched by below its title, as entries of the index, which the search reads."""
    if words := SEARCHED.get(name):
        title, _rest, text = source[0].partition("\n")
        entries = "".join(f"```{{index}} ! {word}\n```\n" for word in words)
        source[0] = f"{title}\n\n{entries}{text}"


def _wrap_prose(_: Sphinx, doctree: nodes.document) -> None:
    """Messages are read, so their lines wrap; tables do not."""
    for block in doctree.findall(nodes.literal_block):
        if block.get("language") == "output" and "──" not in block.astext():
            block["classes"].append("prose")


def _contents(caption: str, pages: list[str]) -> str:
    listed = "\n".join(pages)
    return f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```\n"


def _write_reference(_: Sphinx) -> None:
    """A page for each public module; they are not committed.

    What several modules export is described where it stands first in `MODULES`, `groupwise` itself last.
    """
    shutil.rmtree(DOCS / "reference", ignore_errors=True)
    (DOCS / "reference").mkdir()
    owners: dict[int, str] = {}
    for name in [*MODULES[1:], MODULES[0]]:
        module = import_module(name)
        described = {public: owners.setdefault(id(getattr(module, public)), name) for public in sorted(module.__all__)}
        elsewhere = {public: owner for public, owner in described.items() if owner != name}
        left_out = [*elsewhere, "__version__"]
        lines = [name, "=" * len(name), "", f".. automodule:: {name}", "   :members:"]
        lines += [f"   :exclude-members: {', '.join(left_out)}", ""]
        links = ", ".join(f":obj:`{public} <{owner}.{public}>`" for public, owner in elsewhere.items())
        lines += [f"Described with their packages: {links}."] if links else []
        (DOCS / "reference" / f"{name}.rst").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _as_rst(_: Sphinx, what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """What docstrings write as in Markdown, for reStructuredText: an indented block is code, `|g|` is no substitution,
    and the first colon of a property's sentence does not end a type.
    """
    lines[:] = [_BAR.sub(r"\\|", line) for line in lines]
    for at in range(len(lines) - 1, 0, -1):
        starts = lines[at].startswith("    ") and not lines[at - 1]
        before = next((line for line in reversed(lines[:at]) if line), "")
        if starts and before and not before.startswith(" ") and not _SECTION_OF_DOCSTRING.match(before):
            lines[at:at] = [".. code-block:: text" if _is_formula(lines[at]) else ".. code-block:: python", ""]
    if what in ("attribute", "property", "data"):
        lines.insert(0, "\\ ")


def _is_formula(line: str) -> bool:
    return not re.search(r"[A-Za-z_]\w*\(|^\s*(from|import|with|for|>>>|@)\b", line)


def _without_annotations(
    _: Sphinx, _what: str, _name: str, _obj: Any, _options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None] | None:
    """`Annotated[float, …]` as `float`: how a value is read from a file says nothing to who calls."""
    return None if signature is None else (_plain(_public(signature)), returns and _plain(returns))


def _public(signature: str) -> str:
    """A signature without its private parameters, each default such that Sphinx can read and link the types."""
    arguments, depth = [""], 0
    for letter in _NO_LITERAL.sub("...", signature[1:-1]):
        depth += {"[": 1, "(": 1, "{": 1, "]": -1, ")": -1, "}": -1}.get(letter, 0)
        if letter == "," and not depth:
            arguments.append("")
        else:
            arguments[-1] += letter
    return f"({','.join(argument for argument in arguments if not argument.lstrip().startswith('_'))})"


def _plain(signature: str) -> str:
    while found := _ANNOTATED.search(signature):
        depth, comma, at = 1, 0, found.end()
        while depth:
            depth += {"[": 1, "(": 1, "{": 1, "]": -1, ")": -1, "}": -1}.get(signature[at], 0)
            comma = comma or (at if signature[at] == "," and depth == 1 else 0)
            at += 1
        signature = signature[: found.start()] + signature[found.end() : comma] + signature[at:]
    return signature


def _skip_field_numbers(_: Sphinx, _what: str, _name: str, obj: Any, skip: bool, _options: Any) -> bool | None:
    """Leave out the fields of named tuples, which their class describes."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def _math(translator: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    translator.body.append(convert(node.astext(), display=display))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (_math, None), (_math, None))
    app.connect("builder-inited", _write_reference)
    app.connect("source-read", _with_contents)
    app.connect("source-read", _with_examples)
    app.connect("source-read", _with_searched)
    app.connect("doctree-read", _wrap_prose)
    app.connect("autodoc-skip-member", _skip_field_numbers)
    app.connect("autodoc-process-docstring", _as_rst, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", _without_annotations)
