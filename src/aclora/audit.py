"""What a training's history says of its health: the failure signatures, and the spectra behind them."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from aclora.errors import require
from aclora.spectra import gram_eig, product_svd


@dataclass(frozen=True)
class Audit:
    """The `audit` section of params.yaml: the bounds of the failure signatures."""

    loss_rise: float = 1.5
    no_op_below: float = 0.001
    min_kept: float = 0.05

    def __post_init__(self):
        require(self.loss_rise > 1, "loss_rise", self.loss_rise, "above 1")
        require(0 <= self.no_op_below < 1, "no_op_below", self.no_op_below, "between 0 and 1")
        require(0 <= self.min_kept < 1, "min_kept", self.min_kept, "between 0 and 1")


def audit(history: list[dict], layers: list[str], config: Audit) -> dict:
    """The four failure signatures, each with `found` and what was seen, and a summary of the RESTARTs.

    `history` holds the records of `training.fit`. With no RESTART in it, nothing can be found.
    """
    restarts = [r for r in history if r["event"] == "restart"]
    epochs = [r for r in history if r["event"] == "epoch"]
    out = {"epochs": len(epochs), "restarts": len(restarts)}
    if epochs:
        out["loss_first"], out["loss_last"] = epochs[0]["loss"], epochs[-1]["loss"]
    if restarts:
        moves = [abs(r["probe_after"] / r["probe_before"] - 1) for r in restarts]
        out |= {
            "I": [r["I"] for r in restarts],
            "I_A_max": [max(r["I_A"]) for r in restarts],
            "I_B_max": [max(r["I_B"]) for r in restarts],
            "p": [r["p"] for r in restarts],
            "loss_moved_max": max(moves),
        }
        out["signatures"] = {
            "rank_collapse": _collapse(restarts, layers, config),
            "mode_collapse": _rise(restarts, config),
            "stagnation": _stagnation(restarts),
            "no_op": {"found": max(moves) < config.no_op_below, "loss_moved_max": max(moves)},
        }
    return out


def _collapse(restarts, layers, config):
    """I_M = 0 before the floor in a matrix that is not zero, or next to no energy kept."""
    empty = [
        {"epoch": r["epoch"], "layer": layer, "factor": factor, "kept": kept}
        for r in restarts
        for factor in "AB"
        for layer, index, kept in zip(layers, r[f"I_{factor}"], r[f"kept_{factor}"], strict=True)
        if index == 0
    ]
    kept = min(min(r["kept_A"] + r["kept_B"]) for r in restarts)
    # The unified I may still keep what a matrix's own I_M would have dropped: that is no collapse.
    lost = [e for e in empty if e["kept"] < config.min_kept]
    return {
        "found": bool(lost) or kept < config.min_kept,
        "own_index_zero": len(empty),
        "kept_min": kept,
        "first": (lost or [None])[0],
    }


def _rise(restarts, config):
    """The loss at fixed noise rises sharply at a RESTART and has not come back by the next, or the
    noise put in is far from what was taken out."""
    worst = max(r["probe_after"] / r["probe_before"] for r in restarts)
    lasting = [
        r["epoch"]
        for r, later in itertools.pairwise(restarts)
        if r["probe_after"] > config.loss_rise * r["probe_before"] and later["probe_before"] > r["probe_before"]
    ]
    ratios = [v for r in restarts for v in r["norm_ratio_A"] + r["norm_ratio_B"]]
    off = max(abs(v - 1) for v in ratios)
    return {"found": bool(lasting) or off > 0.5, "loss_rise_max": worst, "epochs": lasting, "norm_off_max": off}


def _stagnation(restarts):
    """p or I moves back and forth instead of rising, or stays put while the loss does not."""
    back = {key: sum(b[key] < a[key] for a, b in itertools.pairwise(restarts)) for key in ("p", "I")}
    steps = len(restarts) - 1
    still = steps > 1 and len({r["I"] for r in restarts}) == 1 and restarts[-1]["loss"] < 0.9 * restarts[0]["loss"]
    # more steps back than forth in a row of at least three
    found = still or (steps >= 3 and any(2 * n > steps for n in back.values()))
    return {"found": found, "p_fell": back["p"], "I_fell": back["I"], "of": steps, "I_stayed_while_loss_fell": still}


def final_spectra(factors: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Singular values of every layer's A, B and B A at the end: (layers, r) each, float64."""
    pairs = list(factors.values())
    values, _ = gram_eig([m for pair in pairs for m in pair])
    rank = values.shape[-1]
    products = torch.zeros(len(pairs), rank, dtype=torch.float64)
    for row, pair in zip(products, pairs, strict=True):
        d = product_svd(*pair)[1]
        row[: len(d)] = d
    return {"A": values[::2].cpu(), "B": values[1::2].cpu(), "BA": products}
