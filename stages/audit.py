"""restart-audit: an adapter and its history → audit.json, spectra.npz and plots in metrics/<style>/."""

from aclora.core.stage import run

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from aclora.audit.plots import restarts_plot, spectra_plot
from aclora.audit.signatures import AuditConfig, audit, failure, final_spectra, trained_factors
from aclora.core import params
from aclora.core.adapter import again, read_about, read_history, read_signal
from aclora.core.errors import InputError
from aclora.core.files import write_json, writing
from aclora.core.tensors import read_tensors
from aclora.project.home import home
from aclora.training.checkpoints import FOLDER, forget

WEIGHTS = "pytorch_lora_weights.safetensors"


def main(name: str) -> None:
    config = params.load("audit", AuditConfig)
    folder = Path("models/adapters") / name
    about = read_about(folder)
    layers = about["layers"]
    history = read_history(folder, layers)
    restarts = [r for r in history if r["event"] == "restart"]
    spectra, cut, truncated = _spectra(folder, layers, len(restarts))
    report = {"method": about["method"], **audit(history, layers, config), **truncated}
    metrics = Path("metrics") / name
    names = ("audit.json", "spectra.npz", "audit", "loss.csv", "restarts.csv")
    with writing(*(metrics / n for n in names)) as (file, arrays, plots, losses, table):
        plots.mkdir()
        drawn = {k: v for k, v in spectra.items() if k != "restarts"}
        if drawn:
            spectra_plot(drawn, cut, layers, plots / "spectra.png")
        if restarts:
            restarts_plot(restarts, spectra["A"].shape[1], plots / "restarts.png")
        _table([r for r in history if r["event"] == "epoch"], ("epoch", "loss"), losses)
        largest = [r | {"I_A": max(r["I_A"]), "I_B": max(r["I_B"])} for r in restarts]
        _table(largest, ("epoch", "p", "I", "I_A", "I_B", "probe_before", "probe_after"), table)
        with arrays.open("wb") as out:
            np.savez(out, layers=np.array(layers, dtype=np.str_), **spectra)
        write_json(file, report)
    _forget_checkpoints(folder)
    for signature, seen in report.get("signatures", {}).items():
        if seen["found"]:
            print(f"audit: {signature.replace('_', ' ')} in {name}: {json.dumps(seen)}")
    # the files are written by now, so that whoever reads the error can look at them
    if config.strict and (why := failure(report)):
        raise InputError(f"{name}: {why} (audit.strict: true; {metrics}/audit.json has more)")


def _spectra(folder: Path, layers: list[str], restarts: int) -> tuple[dict[str, Any], dict[str, int] | None, dict]:
    """The spectra of the trained factors and of each RESTART, the signal's ranks, and what the audit says of these."""
    trained, spectra, cut, truncated = folder / WEIGHTS, {}, None, {}
    if trained.exists():
        spectra = {k: v.numpy() for k, v in final_spectra(trained_factors(trained, layers, again(folder))).items()}
        if (folder / "signal.json").exists():
            signal = read_signal(folder, layers)
            cut = signal["rank"]
            truncated = {"signal_rank": max(cut.values()), "truncation_error_max": max(signal["error"].values())}
    elif restarts:
        raise InputError(f"{trained} is missing: {again(folder)}")
    if (file := folder / "restarts.safetensors").exists():
        values = read_tensors(file, again(folder)).get("values", torch.empty(0))
        if values.ndim != 4 or values.shape[:3] != (restarts, len(layers), 2):
            raise InputError(f"{file} is damaged (not the values of history.jsonl's RESTARTs): {again(folder)}")
        spectra["restarts"] = values.numpy()
    return spectra, cut, truncated


def _forget_checkpoints(folder):
    """The training before this stage is in dvc.lock by now: what it could have gone on from is not needed."""
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            if fingerprint := (opened.metadata() or {}).get("fingerprint"):
                forget(home() / FOLDER / Path(fingerprint).name)


def _table(rows, columns, file):
    """A CSV file for `dvc plots`; the header alone where there is nothing to plot."""
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    run(main, __doc__)
