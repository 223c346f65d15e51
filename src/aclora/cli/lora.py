"""The commands on LoRA files, ours or any other trainer's: inspect, export, resize."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aclora.cli.errors import examples, input_errors
from aclora.core.errors import InputError, printable, require

if TYPE_CHECKING:
    from aclora.lora.files import Factors, LoraFile

OURS = "models/adapters/watercolor/pytorch_lora_weights.safetensors"
File = Annotated[
    str, typer.Argument(metavar="FILE", help="A .safetensors file of ours, diffusers' or kohya's, or PEFT's folder.")
]
Out = Annotated[str, typer.Option(metavar="PATH", help="A .safetensors file; for PEFT's format a folder.")]
Base = Annotated[
    Literal["sd15", "sd21", "sdxl"] | None,
    typer.Option(help="The base model, for kohya's names; guessed from the layers where possible."),
]

app = typer.Typer()


@app.command(epilog=examples(f"aclora inspect {OURS}", "aclora inspect downloaded.safetensors --json"))
@input_errors(status=2)
def inspect(file: File, as_json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False):
    """Show what a LoRA file holds, layer by layer.

    Format, header and, for the ΔW of each layer, rank, norm and singular values.
    """
    from aclora.report.lora_file import describe, description_text

    found = describe(file)
    print(json.dumps(found, indent=1) if as_json else description_text(found))


@app.command(
    epilog=examples(
        f"aclora export {OURS} --to kohya --out kohya.safetensors",
        "aclora export downloaded.safetensors --to peft --out downloaded-peft --energy 0.95 --per-layer",
    )
)
@input_errors(status=2)
def export(
    file: File,
    to: Annotated[
        Literal["peft", "diffusers", "kohya"], typer.Option(help="The format; kohya is for webui and ComfyUI.")
    ],
    out: Out,
    rank: Annotated[int | None, typer.Option(help="Cut every layer to this rank.")] = None,
    energy: Annotated[
        float | None, typer.Option(help="Cut to the rank at which every layer keeps this share of Σ dᵢ².")
    ] = None,
    per_layer: Annotated[
        bool, typer.Option("--per-layer", help="With --energy, give each layer its own rank.")
    ] = False,
    base: Base = None,
):
    """Write a LoRA file in another program's format.

    The factors are written as trained, or cut to a lower rank. Without --per-layer, --energy gives all layers one
    rank: the largest that any of them needs.
    """
    from aclora.lora.files import read
    from aclora.lora.resize import resize

    require(rank is None or energy is None, "--energy", energy, "left out beside --rank")
    require(not per_layer or energy is not None, "--per-layer", per_layer, "used with --energy")
    _check_out(file, out, to)
    found = read(file)
    factors, errors = resize(found.factors, rank=rank, energy=energy, per_layer=per_layer)
    cut = [f"rank {rank}"] if rank else [f"energy {energy}"] if energy else []
    _write(found, factors, errors, to, out, base, cut)


@app.command(
    epilog=examples(
        f"aclora resize {OURS} --out smaller.safetensors --sv-fro 0.9",
        "aclora resize downloaded.safetensors --out rank8.safetensors --rank 8",
    )
)
@input_errors(status=2)
def resize(
    file: File,
    out: Out,
    sv_fro: Annotated[
        float | None, typer.Option(help="Each layer's lowest rank r with √(Σ_{i≤r} dᵢ² / Σ dᵢ²) of at least this.")
    ] = None,
    rank: Annotated[int | None, typer.Option(help="The rank; beside --sv-fro, the highest rank.")] = None,
    base: Base = None,
):
    """Write a LoRA file at a lower rank, in its own format.

    In the options, dᵢ are the singular values of a layer's ΔW, in descending order.
    """
    from aclora.lora.files import read
    from aclora.lora.resize import resize

    if sv_fro is None and rank is None:
        raise InputError("resize needs --sv-fro (0.9 is a good start), --rank, or both")
    found = read(file)
    _check_out(file, out, found.format)
    factors, errors = resize(found.factors, sv_fro=sv_fro, rank=rank)
    cut = [f"sv_fro {sv_fro}"] * (sv_fro is not None) + [f"rank {rank}"] * (rank is not None)
    _write(found, factors, errors, found.format, out, base, cut)


def _check_out(file: str, out: str, to: str) -> None:
    path = Path(out)
    try:
        require(out.strip() != "", "--out", out, "a folder, for PEFT's format, or a file")
        if to == "peft":
            require(not path.is_file(), "--out", out, "a folder, for PEFT's format")
        else:
            require(path.suffix == ".safetensors" and not path.is_dir(), "--out", out, "a file ending in .safetensors")
    except OSError as error:
        raise InputError(f"--out = {out!r} cannot be written: {error.strerror}") from None
    written, read = (
        {os.path.realpath(p), os.path.realpath(p / "adapter_model.safetensors")} for p in (path, Path(file))
    )
    if written & read:
        raise InputError(f"--out = {out!r} is the adapter that is read: give another, or it would be lost")


def _write(
    found: "LoraFile",
    factors: "Factors",
    errors: dict[str, float],
    to: str,
    out: str,
    base: str | None,
    cut: Sequence[str],
) -> None:
    """Write the factors with what was `cut` in the header, and print what came out and what was lost."""
    from aclora.lora.bases import BASES, fitting_bases
    from aclora.lora.export import write
    from aclora.lora.names import network_label

    header = found.header | ({"resized": ", ".join(cut)} if cut else {})
    try:
        write(Path(out), factors, header, to, base, name=printable(Path(out).stem))
    except OSError as error:
        raise InputError(f"--out = {out!r} cannot be written: {error.strerror}") from None
    ranks = [a.shape[0] for a, _ in factors.values()]
    span = f"rank {ranks[0]}" if len(set(ranks)) == 1 else f"ranks {min(ranks)} to {max(ranks)}"
    worst = max(errors, key=errors.__getitem__)
    lost = f"; ‖ΔW − cut‖ / ‖ΔW‖ at most {errors[worst]:.3f} ({worst})" if errors[worst] else ""
    print(f"{printable(out)}: {to}, {network_label(factors)} layers: {len(factors)}, {span}{lost}")
    if to == "kohya" and not fitting_bases(factors):
        print(f"its layers are those of none of {', '.join(BASES)}: the header names no base model")
    if found.text_encoder:
        print(f"left out: text encoder layers, {len(found.text_encoder)}")
