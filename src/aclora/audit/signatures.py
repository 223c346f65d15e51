"""What a training's history says of its health: the failure signatures, and the spectra behind them."""

import itertools

import torch
from pydantic import Field
from torch import Tensor

from aclora.core.config import Config
from aclora.lora.spectra import gram_eig, product_svd


class AuditConfig(Config):
    """The `audit` section of params.yaml: the bounds of the failure signatures."""

    loss_rise: float = Field(gt=1)
    no_op_below: float = Field(ge=0, lt=1)
    min_kept: float = Field(ge=0, lt=1)
    strict: bool


def audit(history: list[dict], layers: list[str], config: AuditConfig) -> dict:
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
            "mode_collapse": _rise(restarts, layers, config),
            "stagnation": _stagnation(restarts),
            "no_op": {
                "found": max(moves) < config.no_op_below,
                "loss_moved_max": max(moves),
                "at": _least_kept(restarts[moves.index(max(moves))], layers),
            },
        }
    return out


def failure(report: dict) -> str | None:
    """Why a report of `audit` should end a pipeline: where it was seen and the knobs to turn; None if it should not.

    Stagnation is no reason: it says that the rank did not settle, not that the adapter is broken.
    """
    seen = {name: s for name, s in report.get("signatures", {}).items() if s["found"]}
    for name in ("rank_collapse", "mode_collapse", "no_op"):
        if name in seen:
            at = seen[name]["at"]
            where = f"at epoch {at['epoch']} in {at['layer']}, factor {at['factor']}"
            return f"{name.replace('_', ' ')} {where}: {_EXPLAINED[name](seen[name], at)}"
    return None


_EXPLAINED = {
    "rank_collapse": lambda seen, at: (
        f"a RESTART kept {at['kept']:.1%} of its energy; raise aclora.alpha (p rises) or aclora.restart_every"
    ),
    "mode_collapse": lambda seen, at: (
        f"its norm became {at['norm_ratio']:.2f} of what it was, the loss at fixed noise rose up to "
        f"{seen['loss_rise_max']:.2f} times; raise aclora.alpha or aclora.restart_every, or lower train.learning_rate"
    ),
    "no_op": lambda seen, at: (
        f"even there, where a RESTART kept {at['kept']:.1%} and changed the most, the loss at fixed noise moved by "
        f"only {seen['loss_moved_max']:.3%}; lower aclora.alpha or aclora.max_rank, so that more is replaced"
    ),
}


def _collapse(restarts, layers, config):
    """I_M = 0 before the floor in a matrix that is not zero, or next to no energy kept."""
    empty = [
        {"epoch": r["epoch"], "layer": layer, "factor": factor, "kept": kept}
        for r in restarts
        for factor in "AB"
        for layer, index, kept in zip(layers, r[f"I_{factor}"], r[f"kept_{factor}"], strict=True)
        if index == 0
    ]
    least = min((_least_kept(r, layers) for r in restarts), key=lambda at: at["kept"])
    kept = least["kept"]
    # The unified I may still keep what a matrix's own I_M would have dropped: that is no collapse.
    lost = [e for e in empty if e["kept"] < config.min_kept]
    return {
        "found": bool(lost) or kept < config.min_kept,
        "own_index_zero": len(empty),
        "kept_min": kept,
        "at": (lost or [least])[0],
    }


def _least_kept(restart, layers):
    """The matrix of which a RESTART kept the smallest share of energy."""
    kept, factor, layer = min(
        (kept, factor, layer) for factor in "AB" for layer, kept in zip(layers, restart[f"kept_{factor}"], strict=True)
    )
    return {"epoch": restart["epoch"], "layer": layer, "factor": factor, "kept": kept}


def _rise(restarts, layers, config):
    """The loss at fixed noise rises sharply at a RESTART and has not come back by the next, or the
    noise put in is far from what was taken out."""
    rises = [r["probe_after"] / r["probe_before"] for r in restarts]
    lasting = [
        r["epoch"]
        for r, later in itertools.pairwise(restarts)
        if r["probe_after"] > config.loss_rise * r["probe_before"] and later["probe_before"] > r["probe_before"]
    ]
    ratios = [
        {"epoch": r["epoch"], "layer": layer, "factor": factor, "norm_ratio": ratio}
        for r in restarts
        for factor in "AB"
        for layer, ratio in zip(layers, r[f"norm_ratio_{factor}"], strict=True)
    ]
    furthest = max(ratios, key=lambda at: abs(at["norm_ratio"] - 1))
    off = abs(furthest["norm_ratio"] - 1)
    at_rise = [at for at in ratios if at["epoch"] in lasting[:1]]
    return {
        "found": bool(lasting) or off > 0.5,
        "loss_rise_max": max(rises),
        "epochs": lasting,
        "norm_off_max": off,
        "at": max(at_rise, key=lambda at: abs(at["norm_ratio"] - 1)) if at_rise else furthest,
    }


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
