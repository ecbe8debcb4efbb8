"""A real Chromium, for what only a browser can tell: whether a page draws, fits and asks the network for anything."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine: how the page draws and fits was not checked"
)

_PROBE = Path(__file__).with_name("probe.js")
_HARNESS = """<!doctype html><body>%s<pre id="told"></pre><script>
addEventListener("message", (event) => { document.getElementById("told").textContent += event.data + "\\n"; });
</script></body>"""


def opened(folder: Path, pages: Mapping[str, tuple[str, int, str]], dark: bool = False) -> dict[str, dict[str, Any]]:
    """What each page says of itself once it is drawn, in a frame of its width.

    Args:
        pages: by name, the page, the width of its frame, and a function of probe.js whose value is reported as `said`.
    """
    frames = []
    for name, (page, width, asked) in pages.items():
        path = folder / f"{name}.html"
        probe = f"<head><script>{_PROBE.read_text(encoding='utf-8')}</script>"
        asking = f'<script>tell("{name}", {asked});</script></body>'
        probed = page.replace("<head>", probe, 1).replace("</body>", asking)
        path.write_bytes(probed.encode(errors="replace"))
        frames.append(f'<iframe src="{path.as_uri()}" width="{width}" height="800"></iframe>')
    harness = folder / "harness.html"
    harness.write_text(_HARNESS % "".join(frames))
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    done = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", scheme,
         f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=60000", "--dump-dom", harness.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    told = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    lines = html.unescape(told[1]).split("\n") if told else []
    return {answer["at"]: answer for answer in map(json.loads, filter(None, lines))}
