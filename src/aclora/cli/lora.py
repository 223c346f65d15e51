"""The commands on LoRA files, ours or any other trainer's: inspect, export, resize."""

import argparse
import json
from pathlib import Path

from aclora.core.errors import InputError, require

REFUSED = 2  # exit status where a file or an option cannot be used
_OURS = "models/adapters/watercolor/pytorch_lora_weights.safetensors"
_BARS = "▁▂▃▄▅▆▇█"


def add_parsers(commands) -> None:
    """Register the three commands at argparse's subparsers `commands`.

    What they parse has `run`, a function of the parsed arguments, and `refused`, the exit status after an
    `InputError` of it.
    """
    looked = _add(
        commands,
        "inspect",
        lambda args: inspect(args.file, args.json),
        "what a LoRA file holds: format, header, ranks, norms, singular values",
        f"aclora inspect {_OURS}\naclora inspect downloaded.safetensors --json",
    )
    looked.add_argument("--json", action="store_true", help="the same as JSON")

    put = _add(
        commands,
        "export",
        lambda args: export(args.file, args.to, args.out, args.rank, args.energy, args.per_layer, args.base),
        "a LoRA file in another program's format, as trained or cut to a lower rank",
        f"aclora export {_OURS} --to kohya --out watercolor.safetensors --base sd15\n"
        f"aclora export {_OURS} --to peft --out watercolor-peft --energy 0.95 --per-layer",
    )
    put.add_argument("--to", required=True, choices=("peft", "diffusers", "kohya"), help="kohya: webui, ComfyUI")
    put.add_argument("--out", required=True, help="a .safetensors file; for peft a folder")
    cut = put.add_mutually_exclusive_group()
    cut.add_argument("--rank", type=int, help="cut every layer to this rank")
    cut.add_argument("--energy", type=float, help="cut to the rank at which every layer keeps this share of Σ dᵢ²")
    put.add_argument("--per-layer", action="store_true", help="with --energy: each layer its own rank")
    _add_base(put)

    less = _add(
        commands,
        "resize",
        lambda args: resize(args.file, args.out, args.sv_fro, args.rank, args.base),
        "a LoRA file at a lower rank, in its own format",
        f"aclora resize {_OURS} --out smaller.safetensors --sv-fro 0.9\n"
        "aclora resize downloaded.safetensors --out rank8.safetensors --rank 8",
    )
    less.add_argument("--out", required=True, help="a .safetensors file; a folder for PEFT's")
    less.add_argument("--sv-fro", type=float, help="each layer's least rank r with √(Σ_{i≤r} dᵢ² / Σ dᵢ²) of this")
    less.add_argument("--rank", type=int, help="the rank, or its bound beside --sv-fro")
    _add_base(less)


def inspect(path: str, as_json: bool = False) -> None:
    """Print what a LoRA file holds: its header and, of every layer's ΔW, rank, norm and singular values."""
    from aclora.lora.files import read, spectrum
    from aclora.lora.spectra import rank_for_energy

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
        "layers": len(found.factors),
        "text_encoder_layers": len(found.text_encoder),
        "parameters": parameters,
        "norm": sum(row["norm"] ** 2 for row in layers.values()) ** 0.5,
        **{k: [min(r[k] for r in layers.values()), max(r[k] for r in layers.values())] for k in _RANKS},
    }
    report = {"file": str(path), "format": found.format, "header": found.header, "layers": layers, "totals": totals}
    print(json.dumps(report, indent=1) if as_json else _text(report))


def export(
    path: str,
    to: str,
    out: str,
    rank: int | None = None,
    energy: float | None = None,
    per_layer: bool = False,
    base: str | None = None,
) -> None:
    """Write a LoRA file in the format `to`, as trained or cut to `rank`, or to what keeps `energy`, 0…1.

    Without `per_layer` the energy's rank is one for all layers: the largest that any needs.
    """
    from aclora.lora.files import read, resize

    _check_out(path, out, to)
    require(not per_layer or energy is not None, "--per-layer", per_layer, "used with --energy")
    found = read(path)
    factors, errors = resize(found.factors, rank=rank, energy=energy, per_layer=per_layer)
    how = f"rank {rank}" if rank else f"energy {energy}" if energy else None
    _write(found, factors, errors, to, out, base, how)


def resize(path: str, out: str, sv_fro: float | None = None, rank: int | None = None, base: str | None = None) -> None:
    """Write a LoRA file at a lower rank in its own format; see `lora_files.resize` for what `sv_fro` means."""
    from aclora.lora import files as lora_files

    if sv_fro is None and rank is None:
        raise InputError("resize needs --sv-fro (0.9 is a good start), --rank, or both")
    found = lora_files.read(path)
    _check_out(path, out, found.format)
    factors, errors = lora_files.resize(found.factors, sv_fro=sv_fro, rank=rank)
    said = [f"sv_fro {sv_fro}"] * (sv_fro is not None) + [f"rank {rank}"] * (rank is not None)
    _write(found, factors, errors, found.format, out, base, ", ".join(said))


_RANKS = ("rank", "rank_90", "rank_99")


def _add(commands, name, run, does, examples):
    parser = commands.add_parser(
        name,
        help=does,
        description=does,
        epilog="examples:\n" + "".join(f"  {line}\n" for line in examples.splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", help="a .safetensors file of ours, diffusers' or kohya's, or PEFT's folder")
    parser.set_defaults(run=run, refused=REFUSED)
    return parser


def _add_base(parser):
    parser.add_argument(
        "--base", choices=("sd15", "sd21", "sdxl"), help="for kohya's names; guessed from the layers where possible"
    )


def _check_out(path, out, to):
    place = Path(out)
    if to == "peft":
        require(not place.is_file(), "--out", out, "a folder, for PEFT's format")
    else:
        require(place.suffix == ".safetensors" and not place.is_dir(), "--out", out, "a file ending in .safetensors")
    ends = [{f.resolve(), (f / "adapter_model.safetensors").resolve()} for f in (place, Path(path))]
    if ends[0] & ends[1]:
        raise InputError(f"--out = {out!r} is the adapter that is read: give another, or it would be lost")


def _write(found, factors, errors, to, out, base, how):
    from aclora.lora.export import write

    header = found.header | ({"resized": how} if how else {})
    try:
        write(Path(out), factors, header, to, base, name=Path(out).stem)
    except OSError as error:
        raise InputError(f"--out = {out!r} cannot be written: {error.strerror}") from None
    ranks = [a.shape[0] for a, _ in factors.values()]
    span = f"rank {ranks[0]}" if len(set(ranks)) == 1 else f"ranks {min(ranks)} to {max(ranks)}"
    worst = max(errors, key=errors.get)
    lost = f"; ‖ΔW − cut‖ / ‖ΔW‖ at most {errors[worst]:.3f} ({worst})" if errors[worst] else ""
    print(f"{out}: {to}, UNet layers: {len(factors)}, {span}{lost}")
    if found.text_encoder:
        print(f"left out: text encoder layers, {len(found.text_encoder)}")


def _text(report):
    lines = [f"{report['file']}: {report['format']}"]
    lines += [f"  {key}: {_short(value)}" for key, value in sorted(report["header"].items())]
    width = max(len(layer) for layer in report["layers"])
    lines.append(f"\n  {'':{width}} {'rank':>5}{'90 %':>6}{'99 %':>6}{'‖ΔW‖':>10}  largest singular values")
    for layer, row in report["layers"].items():
        ranks = f"{row['rank']:5}{row['rank_90']:6}{row['rank_99']:6}"
        top = " ".join(f"{v:.3g}" for v in row["values"][:4])
        lines.append(f"  {layer:{width}} {ranks}{row['norm']:10.4g}  {_bars(row['values'])} {top}")
    totals = report["totals"]
    spans = [f"{low}" if low == high else f"{low}…{high}" for low, high in (totals[k] for k in _RANKS)]
    lines.append(
        f"\n  UNet layers: {totals['layers']}, text encoder layers: {totals['text_encoder_layers']}, "
        f"parameters: {totals['parameters']:,}, ‖ΔW‖ of all: {totals['norm']:.4g}"
    )
    lines.append(f"  rank {spans[0]}; 90 % of the energy Σ dᵢ² in rank {spans[1]}, 99 % in rank {spans[2]}")
    return "\n".join(lines)


def _bars(values):
    top = max(values) or 1
    return "".join(_BARS[round(v / top * 7)] for v in values).ljust(8)


def _short(value, most=100):
    line = " ".join(value.split())
    return line if len(line) <= most else f"{line[:most]}… ({len(line)} characters)"
