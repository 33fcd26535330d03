"""Open reports in a real browser: nothing on the console, no picture wider than the page.

    python tests/browser/check_reports.py [--screenshots DIR] REPORT ...

Needs Chromium or Chrome on the PATH. Prints a line a report; the exit status is 1 if one fails.
Not part of the test suite, which runs where there is no browser.
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import cv2
import numpy as np

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH, HEIGHT, HIGHEST = 1000, 4000, 16000  # HIGHEST: of a picture that browsers still take
# The page's own words of what it draws, and what it says once it is laid out.
PROBE = """
<script>
addEventListener('load', () => {
  const wide = [...document.querySelectorAll('body *')].filter(
    e => !e.closest('pre') && e.getBoundingClientRect().right > innerWidth + 1);
  const flat = [...document.querySelectorAll('svg')].filter(
    e => e.getBoundingClientRect().height < 10);
  const outside = performance.getEntriesByType('resource');
  const body = document.body;
  body.setAttribute('data-wide', wide.map(e => e.tagName).join(' '));
  body.setAttribute('data-flat', flat.length);
  body.setAttribute('data-outside', outside.map(e => e.name).join(' '));
  body.setAttribute('data-pictures', document.querySelectorAll('svg').length);
  body.setAttribute('data-height', document.documentElement.scrollHeight);
});
</script>
"""


def find_browser() -> str:
    """The first browser on the PATH; exits where there is none."""
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    sys.exit(f"no browser on the PATH; install one of {', '.join(BROWSERS)}")


def browse(
    browser: str, page: pathlib.Path, *options: str, height: int = HEIGHT
) -> subprocess.CompletedProcess:
    """Run the browser once on a page, without a window, a profile or a network."""
    with tempfile.TemporaryDirectory() as profile:
        return subprocess.run(
            [
                browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr",
                f"--user-data-dir={profile}", f"--window-size={WIDTH},{height}", *options,
                page.resolve().as_uri(),
            ],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip


def check(browser: str, report: pathlib.Path, screenshot: pathlib.Path) -> tuple[str, list[str]]:
    """(what was seen, faults) of one report; its picture goes to `screenshot`, whole."""
    with tempfile.TemporaryDirectory() as folder:
        probed = pathlib.Path(folder, "probed.html")
        probed.write_text(report.read_text(encoding="utf-8") + PROBE, encoding="utf-8")
        seen = browse(browser, probed, "--dump-dom")
    attributes = dict(re.findall(r'data-(\w+)="([^"]*)"', seen.stdout))
    height = min(int(attributes.get("height", HEIGHT)), HIGHEST)
    shot = browse(browser, report, f"--screenshot={screenshot.resolve()}", height=height)
    said = re.findall(r"CONSOLE.*", shot.stderr + seen.stderr)
    faults = [f"console: {line}" for line in said]
    if attributes.keys() < {"wide", "flat", "outside", "pictures", "height"}:
        return "the page was not laid out", [*faults, "the page was not laid out"]
    faults += [f"wider than the page: {attributes['wide']}"] * bool(attributes["wide"])
    faults += [f"flat pictures: {attributes['flat']}"] * (attributes["flat"] != "0")
    faults += [f"loads {attributes['outside']}"] * bool(attributes["outside"])
    colours = len(np.unique(cv2.imread(str(screenshot)).reshape(-1, 3), axis=0))
    faults += [f"{colours} colours on the screen"] * (colours < 8)
    return f"{attributes['pictures']} pictures, {attributes['height']} px", faults


def main() -> int:
    """Check the reports of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("reports", nargs="+", type=pathlib.Path)
    parser.add_argument("--screenshots", type=pathlib.Path, help="keep the pictures here")
    options = parser.parse_args()
    browser, failed = find_browser(), False
    with tempfile.TemporaryDirectory() as folder:
        pictures = options.screenshots or pathlib.Path(folder)
        pictures.mkdir(parents=True, exist_ok=True)
        for number, report in enumerate(options.reports):
            seen, faults = check(browser, report, pictures / f"{number}-{report.stem}.png")
            print(f"{report}: {'; '.join(faults) or 'ok'} ({seen})")
            failed = failed or bool(faults)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
