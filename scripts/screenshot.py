"""The picture of a report in the README: `make screenshot`, or `make screenshot RUN=runs/…`.

It needs Chromium: on PATH, or named by the environment variable CHROMIUM.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from PIL import Image

from synque_select.report.page import write_report
from tests.report.chromium import chromium, open_browser

TARGET = Path(__file__).parents[1] / "docs" / "images" / "report.png"
WIDTH = 1280
MOST_BYTES = 300_000


def newest_run(root: Path) -> Path:
    """Return the newest run of the demo."""
    runs = sorted(path.parent for path in root.glob("digits/*/ranking.json"))
    if not runs:
        sys.exit(f"no run in {root}/digits: make one with `make demo`, or give one")
    return runs[-1]


def screenshot(page: Path, program: str) -> bytes:
    """Return the top of a page as PNG."""
    with open_browser(program) as browser:
        browser.open(page, width=WIDTH)
        return browser.screenshot()


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", help="a run directory (default: the newest of the demo)")
    given = parser.parse_args().run
    program = chromium()
    if program is None:
        sys.exit("Chromium is not on PATH: install it, or name it in the environment: CHROMIUM=…")
    run = Path(given) if given else newest_run(Path("runs"))
    picture = Image.open(io.BytesIO(screenshot(write_report(run), program))).convert("RGB")
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    # few colors: a page has no more, and the file stays small
    picture.quantize(128, dither=Image.Dither.NONE).save(TARGET, optimize=True)
    size = TARGET.stat().st_size
    if size > MOST_BYTES:
        sys.exit(f"{TARGET} has {size:,} bytes; allowed are {MOST_BYTES:,}")
    print(f"wrote {TARGET} from {run}: {size:,} bytes")


if __name__ == "__main__":
    main()
