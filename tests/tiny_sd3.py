"""A tiny Stable Diffusion 3 of the real classes with random weights."""

from pathlib import Path

import torch

WIDTH = 72  # of the joint attention's text: wider than both CLIPs' together, which diffusers fills up with zeros


def build(folder: Path, t5: bool = True, later: bool = False) -> Path:
    """Save a StableDiffusion3Pipeline: 16×16 pictures, latents 8×8×8, a transformer of two blocks of width 32.

    Without `t5` it has no third text encoder; `later`: 3.5's second attention and its normalised queries and keys.
    """
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    from miniature import tokenizer

    torch.manual_seed(0)
    words = tokenizer.build_tokenizer(tokenizer.words())
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        projection_dim=32,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )
    encoder, words_of_t5 = _t5() if t5 else (None, None)
    StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=8,
            out_channels=8,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=WIDTH,
            caption_projection_dim=32,
            pooled_projection_dim=64,
            pos_embed_max_size=8,
            dual_attention_layers=(0,) if later else (),
            qk_norm="rms_norm" if later else None,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2,
            norm_num_groups=8,
            latent_channels=8,
            sample_size=16,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModelWithProjection(text),
        text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer=words,
        tokenizer_2=words,
        text_encoder_3=encoder,
        tokenizer_3=words_of_t5,
    ).save_pretrained(folder)
    return folder


def _t5():
    """A T5 encoder of width WIDTH and its tokenizer, which knows letters."""
    from string import ascii_lowercase

    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"{c}", -1.0) for c in "▁" + ascii_lowercase)]
    config = T5Config(vocab_size=len(pieces), d_model=WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return T5EncoderModel(config), T5TokenizerFast(vocab=pieces, extra_ids=0)
