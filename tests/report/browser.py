"""A page as headless Chromium shows it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
WIDTHS = (1280, 390)
# The page stands in a frame of the width to try, so that a window's smallest width doesn't matter.
WRAPPER = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe id="frame" style="width:{width}px;height:2000px;border:0" srcdoc="{page}"></iframe>
<pre id="found"></pre>
<script>
const frame = document.getElementById("frame");
frame.onload = async () => {{
  const page = frame.contentDocument, root = page.documentElement;
  for (const d of page.querySelectorAll("details")) d.open = true;
  const pictures = [...page.querySelectorAll("img")];
  await Promise.all(pictures.map(p => p.decode().catch(() => null)));
  const plots = [...page.querySelectorAll("figure > svg")];
  const size = e => e.getBoundingClientRect();
  const seen = e => size(e).width >= 100 && size(e).height >= 40;
  const colour = e => frame.contentWindow.getComputedStyle(e);
  document.getElementById("found").textContent = JSON.stringify({{
    width: root.clientWidth, scroll: root.scrollWidth,
    pictures: pictures.length, plots: plots.length,
    unseen: [...pictures, ...plots].filter(
      e => !seen(e) || (e.tagName === "IMG" && !e.naturalWidth)).length,
    unnamed: [...pictures].filter(e => !e.alt).length
      + plots.filter(e => !e.getAttribute("aria-label")).length,
    requests: frame.contentWindow.performance.getEntriesByType("resource").map(e => e.name)
      .filter(name => !name.startsWith("data:")),
    paper: colour(page.body).backgroundColor, ink: colour(page.body).color,
    smallest: Math.min(...[...page.querySelectorAll("svg text")].map(
      t => t.getBoundingClientRect().height).filter(h => h > 0)),
  }});
}};
</script>"""


def look(page: Path, width: int, dark: bool, folder: Path) -> dict:
    """What Chromium makes of a page at a width, in light or dark.

    Returns:
        widths of window and content, counts of pictures, what can't be seen or has no text in its
        place, colours, the height of the smallest text of a plot in pixels, what the console said,
        and every address that was asked for.
    """
    wrapper = folder / "wrapper.html"
    content = html.escape(page.read_text(encoding="utf-8"), quote=True)
    wrapper.write_text(WRAPPER.format(width=width, page=content), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"]
    command += ["--disable-background-networking", f"--user-data-dir={folder / 'user'}"]
    command += ["--enable-logging=stderr", "--window-size=1400,2200"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    command += ["--virtual-time-budget=10000", "--dump-dom", wrapper.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found and found[1], done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return {**json.loads(html.unescape(found[1])), "console": console}
