"""The autoencoder: 64×64 pictures to 16×16 latents of 8 channels and back."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from miniature import data
from miniature.params import read
from miniature.training import Schedule, device, train


def build_vae(channels, latent_channels, size):
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(channels),
        up_block_types=["UpDecoderBlock2D"] * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=size,
    )


def reconstruction_loss(y, x):
    """Absolute and squared error, and absolute error of the differences between neighbours."""
    slopes = sum((y.diff(dim=d) - x.diff(dim=d)).abs().mean() for d in (2, 3))
    return (y - x).abs().mean() + 2 * (y - x).pow(2).mean() + 0.25 * slopes


@torch.no_grad()
def psnr(vae, pictures, batch=64):
    """Mean peak signal-to-noise ratio of the reconstructions, in dB."""
    values = []
    for part in np.array_split(pictures, max(1, len(pictures) // batch)):
        x = data.to_tensor(part).to(vae.device)
        y = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        values.append(10 * torch.log10(4 / (y - x).pow(2).mean((1, 2, 3))))
    return torch.cat(values).mean().item()


@torch.no_grad()
def scaling_factor(vae, pictures, batch=64):
    """1 / root mean square of the latents: they enter the UNet with unit scale."""
    squares = []
    for part in np.array_split(pictures, max(1, len(pictures) // batch)):
        latent = vae.encode(data.to_tensor(part).to(vae.device)).latent_dist
        squares.append((latent.mean.pow(2) + latent.var).mean())
    return torch.stack(squares).mean().rsqrt().item()


def main():
    params = read()
    build, size, cfg = Path(params["build"]), params["size"], params["vae"]
    schedule = Schedule(**cfg["schedule"])
    plain, _ = data.rendered(data.base_example, range(params["scenes"]), size, build)
    styled, _ = data.rendered(data.styled_example, range(params["styled"]), size, build)
    torch.manual_seed(schedule.seed)
    vae = build_vae(cfg["channels"], cfg["latent_channels"], size)
    vae = vae.to(device(), memory_format=torch.channels_last).train()
    in_style = round(schedule.batch_size * cfg["styled_share"])

    def loss_of(step, generator):
        few = torch.randint(len(styled), (in_style,), generator=generator)
        rest = torch.randint(len(plain), (schedule.batch_size - in_style,), generator=generator)
        x = data.to_tensor(np.concatenate([plain[rest.numpy()], styled[few.numpy()]])).to(vae.device)
        with torch.autocast(vae.device.type, torch.bfloat16):
            latent = vae.encode(x).latent_dist
            noise = torch.randn(latent.mean.shape, generator=generator).to(x)
            z = (latent.mean + latent.std * noise).contiguous(memory_format=torch.channels_last)
            y = vae.decode(z).sample
        mean, logvar = latent.mean.float(), latent.logvar.float()
        kl = 0.5 * (mean.pow(2) + logvar.exp() - 1 - logvar).mean()
        return reconstruction_loss(y.float(), x) + cfg["kl_weight"] * kl

    train("vae", {"vae": vae}, loss_of, schedule, build)
    vae.eval()
    factor = scaling_factor(vae, plain[:2048])
    vae.register_to_config(scaling_factor=round(factor, 4))
    vae.cpu().to(memory_format=torch.contiguous_format).half().save_pretrained(build / "vae")


if __name__ == "__main__":
    main()
