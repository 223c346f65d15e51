"""Failure signatures in a training's history, and the spectra of the finished adapter."""

import itertools
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from aclora.core.config import Config
from aclora.core.errors import InputError
from aclora.lora.files import Factors, read
from aclora.lora.spectra import gram_eig, product_svd


class AuditConfig(Config):
    """The `audit` section of params.yaml: the bounds of the failure signatures."""

    loss_rise: float = Field(gt=1)
    no_op_below: float = Field(ge=0, lt=1)
    min_kept: float = Field(ge=0, lt=1)
    strict: bool


def audit(history: list[dict], layers: list[str], config: AuditConfig) -> dict:
    """A summary of the RESTARTs and the four failure signatures, each with `found` and the numbers behind it.

    `history` holds the records of `training.fit`, `layers` the names behind their lists. Without a RESTART there is
    nothing to find.
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
    """Why a report of `audit` should stop a pipeline, and which knobs help; None if nothing should.

    Stagnation stops nothing: the rank did not settle, but the adapter is not broken.
    """
    found = {name: s for name, s in report.get("signatures", {}).items() if s["found"]}
    for name in ("rank_collapse", "mode_collapse", "no_op"):
        if name in found:
            at = found[name]["at"]
            where = f"at epoch {at['epoch']} in {at['layer']}, factor {at['factor']}"
            return f"{name.replace('_', ' ')} {where}: {_EXPLANATIONS[name](found[name], at)}"
    return None


_EXPLANATIONS = {
    "rank_collapse": lambda signature, at: (
        f"a RESTART kept {at['kept']:.1%} of its energy; raise aclora.alpha (p rises) or aclora.restart_every"
    ),
    "mode_collapse": lambda signature, at: (
        f"its norm became {at['norm_ratio']:.2f} of what it was, the loss at fixed noise rose up to "
        f"{signature['loss_rise_max']:.2f} times; raise aclora.alpha or aclora.restart_every, or lower "
        "train.learning_rate"
    ),
    "no_op": lambda signature, at: (
        f"even there, where a RESTART kept {at['kept']:.1%} and changed the most, the loss at fixed noise moved by "
        f"only {signature['loss_moved_max']:.3%}; lower aclora.alpha or aclora.max_rank, so that more is replaced"
    ),
}


def _collapse(restarts, layers, config):
    """A matrix kept too little of its energy; `own_index_zero` counts those whose own signal index was 0."""
    empty = [
        {"epoch": r["epoch"], "layer": layer, "factor": factor, "kept": kept}
        for r in restarts
        for factor in "AB"
        for layer, index, kept in zip(layers, r[f"I_{factor}"], r[f"kept_{factor}"], strict=True)
        if index == 0
    ]
    least = min((_least_kept(r, layers) for r in restarts), key=lambda at: at["kept"])
    kept = least["kept"]
    # The unified I may still keep what a matrix's own index would have dropped: that is no collapse.
    lost = [e for e in empty if e["kept"] < config.min_kept]
    return {
        "found": bool(lost) or kept < config.min_kept,
        "own_index_zero": len(empty),
        "kept_min": kept,
        "at": (lost or [least])[0],
    }


def _least_kept(restart, layers):
    """The matrix that kept the smallest share of its energy at a RESTART."""
    kept, factor, layer = min(
        (kept, factor, layer) for factor in "AB" for layer, kept in zip(layers, restart[f"kept_{factor}"], strict=True)
    )
    return {"epoch": restart["epoch"], "layer": layer, "factor": factor, "kept": kept}


def _rise(restarts, layers, config):
    """The loss at fixed noise rose sharply at a RESTART and was still higher at the next one, or the norm of a matrix
    changed by more than half."""
    rises = [r["probe_after"] / r["probe_before"] for r in restarts]
    lasting = [
        r["epoch"]
        for r, later in itertools.pairwise(restarts)
        if r["probe_after"] > config.loss_rise * r["probe_before"] and later["probe_before"] > r["probe_before"]
    ]
    ratios: list[dict[str, Any]] = [
        {"epoch": r["epoch"], "layer": layer, "factor": factor, "norm_ratio": ratio}
        for r in restarts
        for factor in "AB"
        for layer, ratio in zip(layers, r[f"norm_ratio_{factor}"], strict=True)
    ]
    largest = max(ratios, key=lambda at: abs(at["norm_ratio"] - 1))
    change = abs(largest["norm_ratio"] - 1)
    at_rise = [at for at in ratios if at["epoch"] in lasting[:1]]
    return {
        "found": bool(lasting) or change > 0.5,
        "loss_rise_max": max(rises),
        "epochs": lasting,
        "norm_off_max": change,
        "at": max(at_rise, key=lambda at: abs(at["norm_ratio"] - 1)) if at_rise else largest,
    }


def _stagnation(restarts):
    """p or I falls in more than half of at least three steps, or I stays while the loss falls by a tenth."""
    falls = {key: sum(b[key] < a[key] for a, b in itertools.pairwise(restarts)) for key in ("p", "I")}
    steps = len(restarts) - 1
    stayed = steps > 1 and len({r["I"] for r in restarts}) == 1 and restarts[-1]["loss"] < 0.9 * restarts[0]["loss"]
    found = stayed or (steps >= 3 and any(2 * n > steps for n in falls.values()))
    return {"found": found, "p_fell": falls["p"], "I_fell": falls["I"], "of": steps, "I_stayed_while_loss_fell": stayed}


def trained_factors(file: Path, layers: list[str], again: str) -> Factors:
    """The factors of a training's layers, in their order, from the file that it wrote.

    Raises `InputError`, which ends with what to do (`again`), where they are not of these layers and of one rank.
    """
    factors = read(file).factors
    if missing := [layer for layer in layers if layer not in factors] or [f for f in factors if f not in layers]:
        raise InputError(f"{file} does not have adapter.json's layers (see {missing[0]}): {again}")
    short = {min(m.shape) if m.ndim == 2 else 0 for pair in factors.values() for m in pair}
    if len(short) != 1 or 0 in short:
        raise InputError(f"{file} has not one rank in all layers, as a training writes them: {again}")
    return {layer: factors[layer] for layer in layers}


def final_spectra(factors: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Singular values of every layer's A, B and B A, of factors A (r, k) and B (d, r): (layers, r) each, float64."""
    pairs = list(factors.values())
    values, _ = gram_eig([m for pair in pairs for m in pair])
    rank = values.shape[-1]
    products = torch.zeros(len(pairs), rank, dtype=torch.float64)
    for row, pair in zip(products, pairs, strict=True):
        d = product_svd(*pair)[1]
        row[: len(d)] = d
    return {"A": values[::2].cpu(), "B": values[1::2].cpu(), "BA": products}
