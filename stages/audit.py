"""restart-audit: an adapter and its history → audit.json, spectra.npz and plots in metrics/<style>/."""

from aclora.core.stage import run

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from aclora.audit.plots import restarts_plot, spectra_plot
from aclora.audit.signatures import AuditConfig, audit, failure, final_spectra
from aclora.core import params
from aclora.core.errors import InputError
from aclora.core.files import read_json, read_jsonl, write_json, writing
from aclora.lora.files import read


def main(name: str) -> None:
    config = params.load("audit", AuditConfig)
    folder = Path("models/adapters") / name
    history = read_jsonl(folder / "history.jsonl")
    about = read_json(folder / "adapter.json")
    layers = about["layers"]
    report = {"method": about["method"], **audit(history, layers, config)}
    metrics = Path("metrics") / name
    restarts = [r for r in history if r["event"] == "restart"]
    names = ("audit.json", "spectra.npz", "audit", "loss.csv", "restarts.csv")
    with writing(*(metrics / n for n in names)) as (file, arrays, plots, losses, table):
        plots.mkdir()
        spectra: dict[str, Any] = {}
        cut = None
        trained = folder / "pytorch_lora_weights.safetensors"
        if trained.exists():
            factors = read(trained).factors
            spectra = {k: v.numpy() for k, v in final_spectra({layer: factors[layer] for layer in layers}).items()}
            if (folder / "signal.json").exists():
                signal = read_json(folder / "signal.json")
                cut = signal["rank"]
                report |= {"signal_rank": max(cut.values()), "truncation_error_max": max(signal["error"].values())}
            spectra_plot(spectra, cut, layers, plots / "spectra.png")
        if (folder / "restarts.safetensors").exists():
            spectra["restarts"] = load_file(folder / "restarts.safetensors")["values"].numpy()
        if restarts:
            restarts_plot(restarts, spectra["A"].shape[1], plots / "restarts.png")
        _table([r for r in history if r["event"] == "epoch"], ("epoch", "loss"), losses)
        largest = [r | {"I_A": max(r["I_A"]), "I_B": max(r["I_B"])} for r in restarts]
        _table(largest, ("epoch", "p", "I", "I_A", "I_B", "probe_before", "probe_after"), table)
        with arrays.open("wb") as out:
            np.savez(out, layers=np.array(layers, dtype=np.str_), **spectra)
        write_json(file, report)
    for signature, seen in report.get("signatures", {}).items():
        if seen["found"]:
            print(f"audit: {signature.replace('_', ' ')} in {name}: {json.dumps(seen)}")
    # the files are written by now, so that whoever reads the error can look at them
    if config.strict and (why := failure(report)):
        raise InputError(f"{name}: {why} (audit.strict: true; {metrics}/audit.json has more)")


def _table(rows, columns, file):
    """A CSV file for `dvc plots`; the header alone where there is nothing to plot."""
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    run(main, __doc__)
