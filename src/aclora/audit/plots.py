"""Plots of a training's RESTARTs and spectra, as PNG files."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm

from aclora.lora.names import network_label

STYLE: Any = {"figure.dpi": 100, "savefig.dpi": 100, "font.size": 10}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False}


def restarts_plot(restarts: list[dict], rank: int, file: Path) -> None:
    """Write a plot of the signal index I (of A, of B, unified) and of p at each RESTART; `rank` is R."""
    epochs = [r["epoch"] for r in restarts]
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
        for key, colour in (("I_A", "tab:blue"), ("I_B", "tab:orange")):
            layers = [[v for v in r[key] if v >= 0] or [0] for r in restarts]
            axis.fill_between(epochs, [min(v) for v in layers], [max(v) for v in layers], alpha=0.2, color=colour, lw=0)
            label = f"{key.replace('_', ' of ')}: median, range"
            axis.plot(epochs, [np.median(v) for v in layers], color=colour, label=label)
        axis.plot(epochs, [r["I"] for r in restarts], "k.-", label="I, unified")
        axis.set(xlabel="epoch", ylabel=f"signal index (of {rank})", ylim=(0, None))
        other = axis.twinx()
        other.plot(epochs, [r["p"] for r in restarts], "--", color="tab:green", label="threshold p")
        other.set(ylabel="p", ylim=(0, 1))
        lines = axis.get_legend_handles_labels()[0] + other.get_legend_handles_labels()[0]
        axis.legend(handles=lines, loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=4, fontsize=8, frameon=False)
        figure.savefig(file)
        plt.close(figure)


def spectra_plot(spectra: dict[str, np.ndarray], cut: dict[str, int] | None, layers: list[str], file: Path) -> None:
    """Write heat maps of the singular values (layers, r) of A, B and B A, each row relative to its largest value.

    `cut` is the rank of each layer in the adapter that was cut to its signal; a line marks it.
    """
    with plt.rc_context(STYLE):
        height = max(3.0, 0.11 * len(layers) + 1.2)
        figure, axes = plt.subplots(1, 3, figsize=(9, height), sharey=True, layout="constrained")
        images = []
        for axis, (name, values) in zip(axes, spectra.items(), strict=True):
            top = values.max(1, keepdims=True)
            share = np.divide(values, top, out=np.zeros_like(values), where=top > 0).clip(1e-4)
            norm = LogNorm(1e-4, 1)
            images.append(axis.imshow(share, norm=norm, aspect="auto", cmap="viridis", interpolation="nearest"))
            axis.set(title=name, xlabel="singular value")
        if cut:
            axes[-1].step([cut[layer] - 0.5 for layer in layers], range(len(layers)), where="mid", color="w", lw=1.2)
        axes[0].set(ylabel=f"layer, from the {network_label(layers)}'s input on")
        figure.colorbar(images[-1], ax=axes, label="relative to the largest")
        figure.savefig(file)
        plt.close(figure)
