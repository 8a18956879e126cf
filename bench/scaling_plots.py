"""Draws docs/scaling.md's pictures: `python -m easel.bench.scaling_plots` reads bench/results."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from easel.bench.plots import plot_options, read

POLICIES = ("lockstep", "segregated", "fcfs", "balanced")
LABELS = {
    "chat, saturated": "chat",
    "chat, 32 slots, saturated": "chat,\n32 slots",
    "a tenth long prompts, saturated": "long\nprompts",
    "whole-sequence rebuilds, saturated": "rebuilds",
}


def draw_policies(results: Mapping[str, Any], axes: Sequence[Axes]) -> None:
    """Throughput over fcfs and step-cost CV where there is always work; waiting in the bursts."""
    scenarios: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]] = results["simulated"]
    speed, steadiness, waiting = axes
    width = 0.8 / len(POLICIES)
    for index, policy in enumerate(POLICIES):
        places = [place + (index - 1.5) * width for place in range(len(LABELS))]
        of = [scenarios[name]["figures"] for name in LABELS]
        relative = [one[policy]["tokens_per_second"][0] / one["fcfs"]["tokens_per_second"][0] for one in of]
        speed.bar(places, relative, width, label=policy)
        steadiness.bar(places, [one[policy]["step_cv"][0] for one in of], width, label=policy)
    for plot, title in ((speed, "throughput over fcfs"), (steadiness, "CV of a step's seconds")):
        plot.set_xticks(range(len(LABELS)), list(LABELS.values()), fontsize=7)
        plot.set_title(title, fontsize=9)
    steadiness.axhline(0.1, color="grey", linewidth=0.8)
    speed.legend(fontsize=7, loc="lower right")
    burst = scenarios["interactive bursts over a batch backlog"]["figures"]
    waiting.bar(POLICIES, [burst[policy]["first_block_p99"][0] for policy in POLICIES])
    waiting.set_title("interactive burst: first block, p99, s", fontsize=9)
    waiting.tick_params(axis="x", labelsize=7)


def draw_scaling(results: Mapping[str, Any], axes: Sequence[Axes]) -> None:
    """Tokens a second, time of a decision, and share of a processor, by replicas."""
    cases: Mapping[str, Mapping[str, Any]] = results["results"]["one scheduler"]
    replicas = [int(name.split()[0].replace(",", "")) for name in cases]
    found = list(cases.values())
    speed, decision, share = axes
    speed.plot(replicas, [one["tokens_per_second"] for one in found], marker="o")
    speed.set_title("output tokens a second", fontsize=9)
    for kind, label in (("place", "placement"), ("digest", "digest")):
        decision.plot(replicas, [one["p50"][kind] * 1e6 for one in found], marker="o", label=f"{label}, p50")
        decision.plot(replicas, [one["p99"][kind] * 1e6 for one in found], marker="x", label=f"{label}, p99")
    decision.set_title("a decision, µs", fontsize=9)
    decision.legend(fontsize=7)
    share.plot(replicas, [one["utilisation"] for one in found], marker="o")
    share.axhline(1.0, color="grey", linewidth=0.8)
    share.set_title("scheduler: share of a processor", fontsize=9)
    for plot in axes:
        plot.set(xscale="log", yscale="log", xlabel="replicas of 64 canvases")


PLOTS = {
    "phase_balance": ("phase_balance.json", draw_policies),
    "scaling": ("scaling.json", draw_scaling),
}


def main() -> None:
    options = plot_options("python -m easel.bench.scaling_plots", __doc__)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, (source, draw) in PLOTS.items():
        if not (options.results / source).is_file():
            continue
        figure = Figure(figsize=(10.0, 3.0), layout="constrained")
        FigureCanvasAgg(figure)
        draw(read(options.results / source), figure.subplots(1, 3))
        figure.savefig(options.out / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()
