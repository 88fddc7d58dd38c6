"""What each quantization costs the merged model, by size: every method, with and without an importance matrix.

    python -m benchmarks.size_quality

Reads models/merged and data/chatml as quantize_gguf does, quantizes to a temporary folder with its own functions,
measures the first held-out answers and writes docs/size_quality.png and the table between the marks in README.md.
"""

import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from stages.shared.chatml_rows import read_texts
from stages.shared.damage import Reference
from stages.shared.gguf_writer import About, read_model, write_ggufs
from stages.shared.imatrix import collect
from stages.shared.layerwise import gguf_weights
from stages.shared.params import load_params
from stages.shared.quant_mixture import METHODS

MERGED, CHATML = Path("models/merged"), Path("data/chatml")
CHART, README = Path("docs/size_quality.png"), Path("README.md")
MARKS = ("<!-- python -m benchmarks.size_quality -->\n", "<!-- end -->")
TEXTS = 8
ABOUT = About("bench", "", "other", [], [], "bench", "", {})
PLAIN, WEIGHTED, INK, FAINT = "#8a8f98", "#1f6feb", "#24292f", "#d0d7de"

COLUMNS = {"kl_divergence": ".5f", "perplexity_ratio": ".4f"}
PANELS: dict[str, Callable[[dict[str, float]], float]] = {
    "KL divergence from the 16-bit model, nats per token": lambda numbers: numbers["kl_divergence"],
    "Perplexity above the 16-bit model's, %": lambda numbers: 100 * (numbers["perplexity_ratio"] - 1),
}

Figures = dict[str, dict[bool, dict[str, float]]]


def measure() -> Figures:
    """By method, and by whether there is a matrix: size in MiB, KL divergence, perplexity ratio."""
    model = read_model(MERGED)
    reference = Reference(model, read_texts(CHATML / "eval.jsonl")[:TEXTS])
    figures: Figures = {method: {} for method in METHODS}
    matrix = collect(model, CHATML / "train.jsonl", load_params().quantize_gguf.imatrix_texts).mean_squares
    for importance in (None, matrix):
        with TemporaryDirectory() as folder:
            files = {method: Path(folder) / f"{method}.gguf" for method in METHODS}
            write_ggufs(model, files, ABOUT, importance)
            for method, file in files.items():
                if importance and METHODS[method].default in ("F16", "BF16", "Q8_0"):
                    figures[method][True] = figures[method][False]  # these round every weight alike
                    continue
                numbers = {"size_mib": file.stat().st_size / 2**20} | reference.damage(gguf_weights(file))
                figures[method][importance is not None] = numbers
                print(method, "with" if importance else "without", numbers, flush=True)
    return figures


def table(figures: Figures) -> str:
    """A Markdown table, the largest file first."""
    lines = [
        "| method | MiB | KL, nats per token | with a matrix | perplexity | with a matrix |",
        "|---|---|---|---|---|---|",
    ]
    for method, both in sorted(figures.items(), key=lambda each: -each[1][False]["size_mib"]):
        size = f"{both[False]['size_mib']:.2f}"
        cells = [f"{both[given][name]:{form}}" for name, form in COLUMNS.items() for given in (False, True)]
        lines.append(f"| {' | '.join([method, size, *cells])} |")
    return "\n".join(lines) + "\n"


def draw(figures: Figures) -> None:
    """Two charts over the file's size; a line joins a method without the matrix and with it."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    lossy = {method: both for method, both in figures.items() if both[False]["kl_divergence"] > 1e-5}
    sizes = [both[False]["size_mib"] for both in lossy.values()]
    figure, panels = plt.subplots(1, 2, figsize=(10.5, 4.3), dpi=110, layout="constrained")
    for axes, (title, value) in zip(panels, PANELS.items(), strict=True):
        axes.set_title(title, loc="left", fontsize=10.5, color=INK, pad=10)
        axes.set_xlabel("file size, MiB", color=INK)
        axes.set_xlim(min(sizes) - 0.12 * max(sizes), 1.1 * max(sizes))
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.grid(color=FAINT, linewidth=0.5, alpha=0.6)
        axes.tick_params(which="both", colors=INK, length=0)
        for method, both in lossy.items():
            x, y, weighted = both[False]["size_mib"], value(both[False]), value(both[True])
            axes.plot([x, both[True]["size_mib"]], [y, weighted], color=FAINT, linewidth=1.5, zorder=1)
            (plain,) = axes.plot(x, y, "o", color="white", markeredgecolor=PLAIN, markersize=6, zorder=2)
            (given,) = axes.plot(both[True]["size_mib"], weighted, "o", color=WEIGHTED, markersize=6, zorder=3)
            # Of several about as large, only the largest has room on its right.
            left = any(x < size < 1.05 * x for size in sizes)
            twins = [value(other[False]) for other in lossy.values() if other[False]["size_mib"] == x and other != both]
            vertical = "center" if not twins else "bottom" if min(twins) < y else "top"
            at = {"xytext": (-8 if left else 8, 0), "ha": "right" if left else "left", "va": vertical}
            axes.annotate(method, (x, y), textcoords="offset points", fontsize=9, color=INK, **at)
    panels[0].set_yscale("log")
    labels = ["without an importance matrix", "with one"]
    panels[0].legend([plain, given], labels, loc="upper right", frameon=False, labelcolor=INK, handletextpad=0.2)
    figure.savefig(CHART)
    plt.close(figure)


def main() -> None:
    """Measure, then write the chart and the table."""
    figures = measure()
    text = table(figures)
    print(text)
    draw(figures)
    begin, end = MARKS
    readme = README.read_text(encoding="utf-8")
    README.write_text(
        re.sub(f"(?s)(?<={re.escape(begin)}).*?(?={re.escape(end)})", lambda _: text, readme), encoding="utf-8"
    )
    print(f"{CHART}: {CHART.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
