"""Write the JSON Schema of plan files anew: `python -m tests.plan.refresh_schema`."""

import json

from groupwise.balance.methods import METHODS
from groupwise.plan.json_schema import FILE, schema
from tests.house.tree import SOURCE


def generated() -> str:
    """The text of the file."""
    return json.dumps(schema(METHODS), indent=1) + "\n"


if __name__ == "__main__":
    (SOURCE / "plan" / FILE).write_text(generated(), encoding="utf-8")
