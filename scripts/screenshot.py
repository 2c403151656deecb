"""The picture of a report in the README: `make screenshot`, or `make screenshot RUN=runs/…`.

It needs Chromium: on PATH, or named by the environment variable CHROMIUM.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from synque_select.report.page import write_report
from tests.report.chromium import chromium

TARGET = Path(__file__).parents[1] / "docs" / "images" / "report.png"
SIZE = (1280, 860)
MOST_BYTES = 300_000


def newest_run(root: Path) -> Path:
    """Return the newest run of the demo."""
    runs = sorted(path.parent for path in root.glob("digits/*/ranking.json"))
    if not runs:
        sys.exit(f"no run in {root}/digits: make one with `make demo`, or give one")
    return runs[-1]


def screenshot(page: Path, program: str) -> bytes:
    """Return the top of a page as PNG."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        image = Path(folder) / "page.png"
        command = [
            program,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--blink-settings=preferredColorScheme=1",  # light
            f"--user-data-dir={folder}/profile",
            f"--window-size={SIZE[0]},{SIZE[1]}",
            f"--screenshot={image}",
            page.resolve().as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if not image.is_file():
            sys.exit(f"Chromium made no picture: {done.stderr.strip()[-500:]}")
        return image.read_bytes()


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
