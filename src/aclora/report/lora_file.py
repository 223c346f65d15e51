"""What a LoRA file holds, as figures and as text."""

from pathlib import Path
from typing import Any

from aclora.core.errors import printable
from aclora.lora.files import read
from aclora.lora.names import network_label
from aclora.lora.resize import spectrum
from aclora.lora.spectra import rank_for_energy

RANKS = ("rank", "rank_90", "rank_99")
BARS = "▁▂▃▄▅▆▇█"
MOST_LINES = 100  # of the header; kohya's trainers write about seventy


def describe(path: str | Path) -> dict[str, Any]:
    """Format and header of a LoRA file, and of each layer's ΔW rank, norm and the largest singular values.

    rank_90 and rank_99 are the ranks that hold 90 % and 99 % of the energy Σ dᵢ². Raises what `lora.files.read` raises.
    """
    found = read(path)
    layers, parameters = {}, 0
    for layer, (a, b) in (found.factors | found.text_encoder).items():
        values = spectrum(a, b)  # (r,)
        parameters += a.numel() + b.numel()
        layers[layer] = {
            "rank": a.shape[0],
            "norm": values.norm().item(),
            "rank_90": rank_for_energy(values, 0.9),
            "rank_99": rank_for_energy(values, 0.99),
            "values": values[:8].tolist(),
        }
    totals = {
        "network": network_label(found.factors),
        "layers": len(found.factors),
        "text_encoder_layers": len(found.text_encoder),
        "parameters": parameters,
        "norm": sum(row["norm"] ** 2 for row in layers.values()) ** 0.5,
        **{k: [min(r[k] for r in layers.values()), max(r[k] for r in layers.values())] for k in RANKS},
    }
    return {"file": str(path), "format": found.format, "header": found.header, "layers": layers, "totals": totals}


def description_text(found: dict[str, Any]) -> str:
    """What `describe` found, as a table of layers between the header and the totals; control characters escaped."""
    header = sorted(found["header"].items())
    lines = [f"{printable(found['file'])}: {found['format']}"]
    lines += [f"  {_shortened(key)}: {_shortened(value)}" for key, value in header[:MOST_LINES]]
    lines += [f"  and {len(header) - MOST_LINES} more"] * (len(header) > MOST_LINES)
    width = max(len(layer) for layer in found["layers"])
    lines.append(f"\n  {'':{width}} {'rank':>5}{'90 %':>6}{'99 %':>6}{'‖ΔW‖':>10}  largest singular values")
    for layer, row in found["layers"].items():
        ranks = f"{row['rank']:5}{row['rank_90']:6}{row['rank_99']:6}"
        largest = " ".join(f"{v:.3g}" for v in row["values"][:4])
        lines.append(f"  {layer:{width}} {ranks}{row['norm']:10.4g}  {_bars(row['values'])} {largest}")
    totals = found["totals"]
    spans = [f"{low}" if low == high else f"{low}…{high}" for low, high in (totals[k] for k in RANKS)]
    lines.append(
        f"\n  {totals['network']} layers: {totals['layers']}, text encoder layers: {totals['text_encoder_layers']}, "
        f"parameters: {totals['parameters']:,}, ‖ΔW‖ of all: {totals['norm']:.4g}"
    )
    lines.append(f"  rank {spans[0]}; 90 % of the energy Σ dᵢ² in rank {spans[1]}, 99 % in rank {spans[2]}")
    return "\n".join(lines)


def _bars(values):
    highest = max(values) or 1
    return "".join(BARS[round(v / highest * 7)] for v in values).ljust(8)


def _shortened(text, limit=100):
    line = printable(" ".join(text[: 4 * limit].split()))[:limit]
    return line if len(text) <= limit else f"{line}… ({len(text)} characters)"
