"""The README as it reads outside the repository, and the project's addresses, when the distribution is built.

`repository`, below `[tool.hatch.metadata.hooks.custom]` in pyproject.toml, is where the project lives. With it every
link of the README becomes an absolute one, at the tag of the version, and the metadata gets its addresses. Without it
no link can lead anywhere, so none is left: links become their words, pictures go, and a sentence says where the pages
are.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)")
_CODE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
ELSEWHERE = (
    "> The pages and pictures that this text speaks of are in the source distribution (`docs/`); "
    "`make docs` there builds them as a site.\n\n"
)


def read_outside(text: str, repository: str, version: str) -> str:
    """A README whose links lead on from anywhere: absolute ones below `repository`, or none if that is empty."""
    parts = _CODE.split(text)  # prose and code in turns
    if repository:
        parts[::2] = [_absolute(prose, f"{repository.rstrip('/')}/{{}}/v{version}/") for prose in parts[::2]]
        return "".join(parts)
    parts[::2] = [_LINK.sub(lambda link: "" if link[1] else link[2], prose) for prose in parts[::2]]
    title, _, rest = "".join(parts).partition("\n\n")
    return f"{title}\n\n{ELSEWHERE}{rest}"


def _absolute(prose: str, base: str) -> str:
    def lead(link: re.Match[str]) -> str:
        return f"{link[1]}[{link[2]}]({base.format('raw' if link[1] else 'blob')}{link[3]})"

    return _LINK.sub(lead, prose)


def addresses(repository: str, version: str) -> dict[str, str]:
    """The project's addresses, by the labels that the package index knows; none if `repository` is empty."""
    if not repository:
        return {}
    base = repository.rstrip("/")
    return {
        "Repository": base,
        "Documentation": f"{base}/blob/v{version}/docs/index.md",
        "Changelog": f"{base}/blob/v{version}/CHANGELOG.md",
        "Issues": f"{base}/issues",
    }


class ReadmeHook(MetadataHookInterface):
    """Fills in `readme` and `urls`, which pyproject.toml declares to be dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling with the project's table."""
        repository = self.config.get("repository", "")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        text = read_outside(text, repository, metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        metadata["urls"] = addresses(repository, metadata["version"])
