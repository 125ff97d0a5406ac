"""Draw the pictures of docs/performance.md from the last figures of bench.py: python benchmarks/pictures.py"""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
from bench import HERE, PEERS, RESULTS, Figures, medians

PLACE = HERE.parent / "docs"
RATE = "runs_per_s"


def by_number(figures: Figures, prefix: str) -> tuple[list[int], list[float]]:
    """Return the rates of scenarios that differ by the number at the end of their names."""
    found = {int(name.removeprefix(prefix)): each[RATE] for name, each in figures.items() if name.removeprefix(prefix).isdigit()}
    return sorted(found), [found[number] for number in sorted(found)]


def add_peers(axes: plt.Axes, figures: Figures) -> None:
    for peer in PEERS:
        rate = figures.get(f"{peer} throughput", {}).get(RATE)
        if rate is not None:
            axes.axhline(rate, linestyle=":", linewidth=1, color="grey")
            axes.annotate(
                f"{peer}, at its best", (1, rate), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8
            )


def draw(name: str, figures: Figures, lines: dict[str, str], xlabel: str) -> None:
    drawing, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for prefix, label in lines.items():
        numbers, rates = by_number(figures, prefix)
        axes.plot(numbers, rates, marker="o", label=label)
    add_peers(axes, figures)
    axes.set(xscale="log", yscale="log", xlabel=xlabel, ylabel="runs/s, each durable")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    drawing.savefig(PLACE / name, metadata={"Date": None})


def main() -> None:
    plt.rcParams["svg.hashsalt"] = "cronactors"  # the same figures give the same file
    figures = medians(json.loads(RESULTS.read_text())["rounds"])
    slots = {"ours throughput ": "cronactors", "limit bare_actor ": "a bare group-committing actor"}
    draw("throughput-by-slots.svg", figures, slots, "max_concurrent_runs")
    draw("throughput-by-stored.svg", figures, {"ours throughput beside ": "cronactors, 100 slots"}, "jobs stored beside")


if __name__ == "__main__":
    main()
