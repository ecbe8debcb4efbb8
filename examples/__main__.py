"""Run the comparison of each example, or of those that are named:  python -m examples [two_branches …] [--write]"""

import sys
from importlib import import_module
from pathlib import Path

NAMES = sorted(path.parent.name for path in Path(__file__).parent.glob("*/compare.py"))
"""The folders that hold an example."""


def main(argv: list[str]) -> None:
    """Names choose; everything else is handed to each comparison. What lacks its data is named at the end."""
    chosen, missing = [word for word in argv if word in NAMES], []
    for name in chosen or NAMES:
        sys.stdout.write(f"{name}\n")
        try:
            import_module(f"examples.{name}.compare").main([word for word in argv if word not in NAMES])
        except SystemExit as error:
            if not isinstance(error.code, str):  # of the command line
                raise
            missing.append(f"{name}: {error.code}")
    if missing:
        raise SystemExit("\n".join(missing))


if __name__ == "__main__":
    main(sys.argv[1:])
