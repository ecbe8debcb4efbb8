"""How plans and resolutions show themselves: short in a prompt, as tables in a notebook, never as markup of theirs."""

from html.parser import HTMLParser

from groupwise import Plan, Rule, clip_norm
from groupwise.optim import resolve
from groupwise.schedules import cosine
from tests.plan.models import Net

PLAN = Plan(
    [Rule("*", optimizer="AdamW", lr=cosine(1e-3)), Rule("head.*", label="<b>head</b>", lr=1e-2)],
    clip=clip_norm(5.0),
    values={"teacher": cosine(0.996, end=1.0)},
)


class Cells(HTMLParser):
    """The tags and the text of cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_a_plan_is_one_line_in_a_prompt() -> None:
    assert repr(PLAN) == "Plan(2 rules: 'base', '<b>head</b>'; clip norm 5; values teacher)"


def test_a_resolution_is_one_line_in_a_prompt() -> None:
    resolution = resolve(Net(), PLAN)
    assert repr(resolution) == f"Resolution({str(resolution).splitlines()[-2]})"


def test_a_notebook_shows_every_cell_of_the_table() -> None:
    resolution = resolve(Net(), PLAN)
    shown = Cells(resolution._repr_html_())
    for line in str(resolution).splitlines():
        for cell in filter(None, (part.strip() for part in line.split("  "))):
            assert cell in shown.words or not cell.strip("─"), cell


def test_a_notebook_shows_every_rule_and_no_markup_of_a_label() -> None:
    for shown in (Cells(PLAN._repr_html_()), Cells(resolve(Net(), PLAN)._repr_html_())):
        assert "b" not in shown.tags
    assert {"<b>head</b>", "head.*", "lr=0.01"} <= set(Cells(PLAN._repr_html_()).words)
