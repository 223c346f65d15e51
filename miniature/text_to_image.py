"""The text encoder and the UNet, trained together on the plain drawings' latents, and the pipeline.

Neither has ever seen one of the eight styles: those are an adapter's to learn.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextConfig, CLIPTextModel

from miniature import data, tokenizer
from miniature.params import read
from miniature.training import Schedule, device, train


def build_scheduler():
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
        timestep_spacing="trailing",  # the first step starts from pure noise, as in training
    )


def build_text_encoder(tok, width, layers):
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tok),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 32,
            max_position_embeddings=tokenizer.LENGTH,
            hidden_act="gelu",
            projection_dim=width,
            bos_token_id=tok.bos_token_id,
            eos_token_id=tok.eos_token_id,
            pad_token_id=tok.pad_token_id,
        )
    )


def build_unet(channels, latent_channels, sample_size, text_width):
    return UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=["CrossAttnDownBlock2D"] * len(channels),
        up_block_types=["CrossAttnUpBlock2D"] * len(channels),
        mid_block_type="UNetMidBlock2DCrossAttn",
        cross_attention_dim=text_width,
        attention_head_dim=[c // 32 for c in channels],
        norm_num_groups=16,
    )


@torch.no_grad()
def encode(vae, pictures, batch=128):
    """Latent means and standard deviations of `pictures`, half precision, (n, c, h, w) each."""
    means, stds = [], []
    for part in np.array_split(pictures, max(1, len(pictures) // batch)):
        with torch.autocast(vae.device.type, torch.bfloat16):
            latent = vae.encode(data.to_tensor(part).to(vae.device)).latent_dist
        means.append(latent.mean.half().cpu())
        stds.append(latent.std.half().cpu())
    return torch.cat(means), torch.cat(stds)


def token_ids(tok, texts):
    out = tok(texts, padding="max_length", max_length=tokenizer.LENGTH, truncation=True)
    return torch.tensor(out.input_ids)


def latents_of(vae, pictures, file):
    """`encode`, kept in `file`."""
    if not file.exists():
        torch.save(encode(vae, pictures), file)
    return torch.load(file, weights_only=True)


def save_pipeline(folder, vae, text_encoder, tok, unet):
    """Write the whole as fp16 safetensors that `StableDiffusionPipeline.from_pretrained` reads."""
    parts = [m.cpu().to(memory_format=torch.contiguous_format).half() for m in (vae, unet)]
    StableDiffusionPipeline(
        vae=parts[0],
        text_encoder=text_encoder.cpu().half(),
        tokenizer=tok,
        unet=parts[1],
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def main():
    params = read()
    build, cfg = Path(params["build"]), params["text_to_image"]
    schedule = Schedule(**cfg["schedule"])
    where = device()
    tok = tokenizer.save(build / "tokenizer")
    plain, notes = data.rendered(data.base_example, range(params["scenes"]), params["size"], build)
    vae = AutoencoderKL.from_pretrained(build / "vae", dtype=torch.float32)
    vae = vae.to(where, memory_format=torch.channels_last).eval()
    means, stds = latents_of(vae, plain, build / f"latents-{data.made_by(*(build / 'vae').glob('*.safetensors'))}.pt")
    ids, empty = token_ids(tok, [n["caption"] for n in notes]), token_ids(tok, [""])
    torch.manual_seed(schedule.seed)
    text_encoder = build_text_encoder(tok, cfg["text_width"], cfg["text_layers"]).to(where)
    unet = build_unet(cfg["channels"], means.shape[1], means.shape[2], cfg["text_width"])
    unet = unet.to(where, memory_format=torch.channels_last)
    if where.type == "cpu":  # the fused attention's backward is the slower one there
        unet.set_attn_processor(AttnProcessor())
        text_encoder.config._attn_implementation = "eager"
    signal = build_scheduler().alphas_cumprod.to(where)
    batch, scale = schedule.batch_size, vae.config.scaling_factor

    def loss_of(step, generator):
        pick = torch.randint(len(means), (batch,), generator=generator)
        noise = torch.randn(2, batch, *means.shape[1:], generator=generator)
        x = ((means[pick].float() + stds[pick].float() * noise[0]) * scale).to(where)
        text = ids[pick]
        text[torch.rand(batch, generator=generator) < cfg["caption_dropout"]] = empty
        # one time in each of `batch` equal strata
        spread = (torch.rand(1, generator=generator) + torch.arange(batch) / batch) % 1
        t = (spread * len(signal)).long().to(where)
        a = signal[t].view(-1, 1, 1, 1)
        n = noise[1].to(where)
        noisy = (a.sqrt() * x + (1 - a).sqrt() * n).to(memory_format=torch.channels_last)
        with torch.autocast(where.type, torch.bfloat16):
            y = unet(noisy, t, text_encoder(text.to(where))[0], return_dict=False)[0]
        return F.mse_loss(y.float(), a.sqrt() * n - (1 - a).sqrt() * x)

    modules = {"unet": unet, "text_encoder": text_encoder}
    train("text_to_image", modules, loss_of, schedule, build)
    save_pipeline(build / "pipeline", vae, text_encoder, tok, unet)


if __name__ == "__main__":
    main()
