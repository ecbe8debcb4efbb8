"""The campaigns by name. A module is imported when its campaign begins: a small process is forked sooner."""

import importlib
from collections.abc import Mapping
from typing import NamedTuple

from tests.campaigns.campaign import Campaign


class Known(NamedTuple):
    """Where a campaign is, and what one input of it may take."""

    module: str
    ready: str = "ready"
    seconds: float = 10.0
    memory: int = 128 * 2**20

    def campaign(self) -> Campaign:
        module = importlib.import_module(f"tests.campaigns.{self.module}")
        return Campaign(getattr(module, self.ready), self.seconds, self.memory)


CAMPAIGNS: Mapping[str, Known] = {
    "kill-records": Known("kill_records"),
    "kill-files": Known("kill_files"),
    "fill-records": Known("fill_records"),
    "fill-files": Known("fill_files"),
    "plans": Known("plans"),
    "bits": Known("bits"),
    "records": Known("records", "reading"),
    "reports": Known("records", "reporting"),
    "failures": Known("failures"),
}
