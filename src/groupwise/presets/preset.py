"""A preset: the text of a plan file, and what its head says of it.

The head is the comment that the file begins with: the summary, then paragraphs that begin with a word and a colon.

    # An encoder fine-tuned on a task: a small rate, no decay on norms and biases.
    #
    # Source:  BERT (Devlin et al. 2019, arXiv:1810.04805) and its code: …
    # Fits:    BERT, RoBERTa, …
    # Expects: roles norm and bias.
    # Change:  lr, first of all; …

What is handed out begins with one line more, `# groupwise new NAME`, so that a plan that does not fit a model can be
told where it came from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile

from groupwise.plan import Plan

_FIRST = "# groupwise new "
_ORIGIN = re.compile(rf"{_FIRST}([a-z0-9-]{{1,64}})\r?\n")
_PARAGRAPH = re.compile(r"(Source|Fits|Expects|Change):\s+(.*)")


@dataclass(frozen=True)
class Preset:
    """A plan file of a published recipe.

    Attributes:
        name: what `groupwise new` calls it.
        file: the text of its file.
    """

    name: str
    file: str

    @property
    def text(self) -> str:
        """The text that is handed out: the file after a line that names the preset."""
        return f"{_FIRST}{self.name}\n{self.file}"

    @property
    def plan(self) -> Plan:
        """The plan that the text says."""
        return Plan.loads(self.file)

    @property
    def summary(self) -> str:
        """What it is, in one line."""
        return self._head[0]

    @property
    def source(self) -> str:
        """The paper or the code that its values are from."""
        return self._paragraphs["Source"]

    @property
    def fits(self) -> str:
        """The models that it is for."""
        return self._paragraphs["Fits"]

    @property
    def expects(self) -> str:
        """What it has to find in a model: roles and names."""
        return self._paragraphs["Expects"]

    @property
    def change(self) -> str:
        """What depends on the job, and is to be changed first."""
        return self._paragraphs["Change"]

    @property
    def _head(self) -> list[str]:
        comment = takewhile(lambda line: line.startswith("#"), self.file.splitlines())
        return [line.removeprefix("#").strip() for line in comment]

    @property
    def _paragraphs(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        word = ""
        for line in self._head[1:]:
            if begins := _PARAGRAPH.match(line):
                word, found[begins[1]] = begins[1], begins[2]
            elif word:
                found[word] += f" {line}"
        return found


def origin(text: str) -> str | None:
    """The name of the preset that a plan file says it began as; None where it says nothing."""
    found = _ORIGIN.match(text)
    return found[1] if found else None
