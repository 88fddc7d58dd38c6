"""The README's pictures and tables of what was trained and tried, by DVC's own commands and a real Chromium.

python -m tools.show_experiments                    the workspace's charts, as docs/charts.png
python -m tools.show_experiments rank-4 rank-32     both experiments' charts, as docs/plots_diff.png, and the
                                                    tables between the marks in README.md
"""

import argparse
import re
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageChops

PAGE = Path("dvc_plots/index.html")
DIFF = Path("docs/plots_diff.png")
WINDOW = (1240, 2400)  # two charts side by side; what stays empty below is cut off
README = Path("README.md")
MARKS = ("<!-- python -m tools.show_experiments rank-4 rank-32 -->\n", "<!-- end -->")


def output(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def screenshot(page: Path, target: Path) -> None:
    """Draw a page in Chromium, without a network, and cut the empty margin off."""
    with TemporaryDirectory() as scratch:
        options = ("--headless", "--no-sandbox", "--hide-scrollbars", "--virtual-time-budget=20000")
        places = (f"--user-data-dir={scratch}/profile", f"--screenshot={scratch}/page.png")
        size = f"--window-size={WINDOW[0]},{WINDOW[1]}"
        network = "--host-resolver-rules=MAP * ~NOTFOUND"
        output("chromium", *options, *places, size, network, page.resolve().as_uri())
        picture = Image.open(f"{scratch}/page.png").convert("RGB")
    empty = Image.new("RGB", picture.size, picture.getpixel((0, 0)))
    left, top, right, bottom = ImageChops.difference(picture, empty).getbbox() or (0, 0, *picture.size)
    margin = 16
    box = (max(0, left - margin), max(0, top - margin), min(WINDOW[0], right + margin), min(WINDOW[1], bottom + margin))
    # The charts have few colours: a palette halves the file.
    picture.crop(box).quantize(64).save(target, optimize=True)
    print(f"{target}: {target.stat().st_size / 1000:.0f} KB")


def tables(one: str, other: str) -> str:
    """What was tried, the difference between two experiments, and their picture, in Markdown."""
    output("make", ".venv/.ready")  # what an installation prints is no table
    shown = output("make", "--no-print-directory", "experiments", "FORMAT=--md")
    diff = output("dvc", "metrics", "diff", "--all", "--md", one, other, "--targets", "reports/summary.json")
    picture = f"![Every chart of `dvc plots diff {one} {other}`, with both]({DIFF})"
    return f"`make experiments`:\n\n{shown}\n\n`dvc metrics diff --all {one} {other}`:\n\n{diff}\n\n{picture}\n"


def main() -> None:
    """Draw the workspace, or two experiments with their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", help="none, or the names of two")
    names = parser.parse_args().experiments
    if not names:
        output("dvc", "plots", "show")
        screenshot(PAGE, Path("docs/charts.png"))
        return
    output("dvc", "plots", "diff", *names)
    screenshot(PAGE, DIFF)
    text = tables(*names)
    print(text)
    begin, end = (re.escape(mark) for mark in MARKS)
    readme = README.read_text(encoding="utf-8")
    README.write_text(re.sub(f"(?s)(?<={begin}).*?(?={end})", lambda _: text, readme), encoding="utf-8")


if __name__ == "__main__":
    main()
