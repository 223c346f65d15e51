"""Writing LoRA factors for other programs: PEFT, diffusers, and those that read kohya's files (webui, ComfyUI)."""

import json
from pathlib import Path

import torch
from safetensors.torch import save

from aclora.core.errors import InputError, require
from aclora.lora.files import Factors
from aclora.lora.names import XL_LAYERS, component_of, kohya_name, layers_per_block

FORMATS = ("peft", "diffusers", "kohya")
BASES = {  # as kohya's trainers name them: ss_base_model_version, modelspec.architecture, its implementation
    "sd15": ("sd_v1", "stable-diffusion-v1", "diffusers"),
    "sd21": ("sd_v2", "stable-diffusion-v2-768-v", "diffusers"),
    "sdxl": ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base", "https://github.com/Stability-AI/generative-models"),
}
WIDTHS = {768: "sd15", 1024: "sd21", 2048: "sdxl"}  # of the text that the cross-attention reads

# what a header says of its own file, not of the adapter
_OF_THE_FILE = {
    "format",
    "lora_adapter_metadata",
    "layers_per_block",
    "ss_network_module",
    "ss_network_dim",
    "ss_network_alpha",
    "ss_network_args",
    "sshs_model_hash",
    "sshs_legacy_hash",
    "modelspec.hash_sha256",
}


def write(
    path: Path, factors: Factors, header: dict[str, str], to: str, base: str | None = None, name: str = "adapter"
) -> None:
    """Write factors in a format: `path` is PEFT's folder, or the .safetensors file of the others.

    `header` is carried over, without what it said of the file it came from. kohya's names depend on the base, a key of
    BASES (guessed by `guess_base` if None); `name` is its ss_output_name where the header has no style. Same factors
    and header: same bytes. Raises `InputError` for a transformer's factors in kohya's format.
    """
    require(to in FORMATS, "--to", to, f"one of {', '.join(FORMATS)}")
    if not factors:
        raise InputError(f"nothing to write to {path}: there is no layer of a UNet or a transformer")
    if to == "kohya" and component_of(factors) != "unet":
        raise InputError(
            "--to = 'kohya': must be diffusers or peft, for these are a transformer's layers, and kohya's names are "
            "known here for the UNets of SD 1.x, 2.x and XL alone"
        )
    header = {k: str(v) for k, v in header.items() if k not in _OF_THE_FILE}
    factors = {k: (a.detach().cpu().contiguous(), b.detach().cpu().contiguous()) for k, (a, b) in factors.items()}
    path = Path(path)
    (path if to == "peft" else path.parent).mkdir(parents=True, exist_ok=True)
    if to == "peft":
        save_peft(path, factors, header)
    elif to == "diffusers":
        save_diffusers(path, factors, header)
    else:
        save_kohya(path, factors, header, base or guess_base(factors, header), name)


def save_peft(folder: Path, factors: Factors, header: dict[str, str]) -> None:
    """Write adapter_config.json and adapter_model.safetensors as `PeftModel.from_pretrained` reads them.

    lora_alpha = rank, layer by layer, so that ΔW = B A whatever the ranks.
    """
    ranks = {layer: a.shape[0] for layer, (a, _) in factors.items()}
    top = max(ranks.values())
    others = {layer: rank for layer, rank in ranks.items() if rank != top}
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": header.get("base_model"),
        "r": top,
        "lora_alpha": top,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(ranks),
        "bias": "none",
        "inference_mode": True,
    }
    tensors = {}
    for layer, (a, b) in factors.items():
        tensors[f"base_model.model.{layer}.lora_A.weight"] = a
        tensors[f"base_model.model.{layer}.lora_B.weight"] = b
    text = json.dumps(config, indent=1, sort_keys=True)
    (folder / "adapter_config.json").write_text(text + "\n", encoding="utf-8")
    (folder / "adapter_model.safetensors").write_bytes(in_order(save(tensors, {"format": "pt", **header})))


def save_kohya(file: Path, factors: Factors, header: dict[str, str], base: str | None, name: str) -> None:
    """Write the file that kohya's trainers write, with the header by which webui and ComfyUI know the base.

    One rank for all: alpha = rank. Mixed ranks: alpha = the largest rank for every layer and B scaled by
    rank / alpha, since diffusers (0.42) applies one alpha to all layers of such files.
    """
    if base not in BASES:
        fault = f"--base = {base!r} is unknown" if base else "--base is missing: the layers do not tell the base model"
        raise InputError(f"{fault}; give one of {', '.join(BASES)}")
    version, architecture, implementation = BASES[base]
    layers = layers_per_block(list(factors)) if base == "sdxl" else None
    ranks = {a.shape[0] for a, _ in factors.values()}
    alpha, tensors = max(ranks), {}
    for layer, (a, b) in factors.items():
        key = kohya_name(layer, layers)
        rank = a.shape[0]
        if rank != alpha:
            b = b.to(torch.promote_types(b.dtype, torch.float32)) * (rank / alpha)
        tensors[f"{key}.lora_down.weight"] = a
        tensors[f"{key}.lora_up.weight"] = b
        tensors[f"{key}.alpha"] = torch.tensor(float(alpha))
    title = header.get("style", name)
    trigger = header.get("trigger", header.get("modelspec.trigger_phrase"))
    described = {
        "format": "pt",
        "ss_output_name": title,
        "modelspec.title": title,
        **header,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(alpha) if len(ranks) == 1 else "Dynamic",  # kohya's word for mixed ranks
        "ss_network_alpha": str(alpha),
        "ss_base_model_version": version,
        "ss_v2": str(base == "sd21"),  # webui tells SD 2 by this
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.implementation": implementation,
    }
    described |= {"modelspec.trigger_phrase": trigger} if trigger else {}
    described |= {"layers_per_block": str(layers)} if layers not in (None, XL_LAYERS) else {}
    file.write_bytes(in_order(save(tensors, described)))


def guess_base(factors: Factors, header: dict[str, str]) -> str | None:
    """A key of BASES: by the header, else the width of the text that cross-attention reads, else None."""
    versions = {version: base for base, (version, *_) in BASES.items()}
    if known := versions.get(header.get("ss_base_model_version", "")):
        return known
    widths = {a.shape[1] for layer, (a, _) in factors.items() if layer.endswith(("attn2.to_k", "attn2.to_v"))}
    return WIDTHS.get(widths.pop()) if len(widths) == 1 else None


def save_diffusers(file: Path, factors: Factors, header: dict[str, str]) -> None:
    """Write a UNet's or a transformer's factors as `pipe.load_lora_weights` reads them; ΔW = B A, whatever the ranks.

    `header` goes into the file's metadata. The scale is written down as lora_alpha = rank, layer by
    layer: loaders guess it where it is missing, and have guessed wrong for mixed ranks.
    """
    component, tensors, ranks = component_of(factors), {}, {}
    for layer, (a, b) in factors.items():
        tensors[f"{component}.{layer}.lora_A.weight"] = a.detach().cpu().contiguous()
        tensors[f"{component}.{layer}.lora_B.weight"] = b.detach().cpu().contiguous()
        ranks[layer] = a.shape[0]
    top = max(ranks.values())
    others = {layer: rank for layer, rank in ranks.items() if rank != top}
    config = {
        "r": top,
        "lora_alpha": top,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(ranks),
    }
    described = {f"{component}.{k}": v for k, v in config.items()}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(described, sort_keys=True), **header}
    file.write_bytes(in_order(save(tensors, metadata)))


def in_order(raw: bytes) -> bytes:
    """A safetensors file's bytes with its header's keys sorted; the tensors stay as they are.

    The library writes metadata in an order that changes from call to call, but the same adapter must be the same file.
    """
    size = int.from_bytes(raw[:8], "little")
    header = json.dumps(json.loads(raw[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of eight
    return len(header).to_bytes(8, "little") + header + raw[8 + size :]


def save_tuner(folder: Path, config: dict, tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    """Write a tuner of PEFT's as `PeftModel.from_pretrained` reads it: its config and its tensors in `folder`.

    For changes that are no product of two factors; `config` and `tensors` as PEFT gives them.
    """
    plain = {k: sorted(v) if isinstance(v, (set, list)) else v for k, v in config.items()}
    text = json.dumps(plain, indent=1, sort_keys=True, default=lambda v: getattr(v, "value", None))
    (folder / "adapter_config.json").write_text(text + "\n", encoding="utf-8")
    named = {f"base_model.model.{k}": v.detach().cpu().contiguous() for k, v in tensors.items()}
    (folder / "adapter_model.safetensors").write_bytes(in_order(save(named, {"format": "pt", **header})))
