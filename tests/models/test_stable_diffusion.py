"""Loading models and what is made of pictures and prompts, for Stable Diffusion and for XL."""

import pytest
import torch
from PIL import Image

from aclora.core.errors import InputError
from aclora.models.stable_diffusion import (
    encode_pictures,
    encode_prompts,
    load_pipeline,
    native_size,
    predict,
    square,
)
from tests.conftest import make_method, model_config, section


@pytest.fixture(scope="module")
def tiny_xl(tmp_path_factory):
    """A StableDiffusionXLPipeline's folder with random weights."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from miniature import tokenizer

    torch.manual_seed(0)
    tok = tokenizer.build_tokenizer(tokenizer.words())
    text = CLIPTextConfig(
        vocab_size=len(tok),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        projection_dim=32,
        bos_token_id=tok.bos_token_id,
        eos_token_id=tok.eos_token_id,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=(2, 2),
        norm_num_groups=8,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=32 + 6 * 8,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        norm_num_groups=8,
        sample_size=16,
    )
    folder = tmp_path_factory.mktemp("xl") / "pipeline"
    StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer=tok,
        tokenizer_2=tok,
        unet=unet,
        scheduler=EulerDiscreteScheduler(),
    ).save_pretrained(folder)
    return folder


@pytest.fixture(params=["tiny_folder", "tiny_xl"])
def pipe(request):
    folder = str(request.getfixturevalue(request.param))
    return load_pipeline(model_config(folder))


def test_nothing_of_the_base_trains(pipe):
    parts = [pipe.unet, pipe.vae, pipe.text_encoder]
    assert not any(p.requires_grad for part in parts for p in part.parameters())
    assert all(p.dtype == torch.float32 for part in parts for p in part.parameters())


def test_pictures_become_scaled_latents(pipe):
    assert native_size(pipe) == 16
    pictures = [Image.new("RGB", (30, 20), c) for c in ("red", "blue")]
    mean, std = encode_pictures(pipe, pictures, 16)
    assert mean.shape == std.shape == (2, 4, 8, 8)
    assert (std > 0).all()
    again, _ = encode_pictures(pipe, [square(p, 16) for p in pictures], 16)
    torch.testing.assert_close(mean, again)


def test_a_resolution_the_model_cannot_halve_is_named(pipe):
    with pytest.raises(InputError, match=r"train.resolution = 17: must be a multiple of 2"):
        encode_pictures(pipe, [Image.new("RGB", (30, 20))], 17)


def test_the_unet_predicts_under_the_encoded_prompts(pipe):
    text = encode_prompts(pipe, ["a red house", "a blue boat"], 16)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = predict(pipe.unet, x, torch.tensor([3, 900]), text)
        swapped = predict(pipe.unet, x, torch.tensor([3, 900]), {k: v.flip(0) for k, v in text.items()})
    assert out.shape == x.shape
    assert not torch.equal(out, swapped)


def test_aclora_trains_and_its_file_loads(pipe, tmp_path):
    from accelerate import Accelerator

    from aclora.lora.export import save_diffusers
    from aclora.models.sampling import GenerateConfig, load_adapter, sample
    from aclora.models.stable_diffusion import training_scheduler
    from aclora.training.loop import Diffusion, Encoded, TrainConfig, fit

    method = make_method("aclora", max_rank=4, restart_every=1)
    mean, std = encode_pictures(pipe, [Image.new("RGB", (16, 16), c) for c in ("red", "blue")], 16)
    data = Encoded(mean, std, encode_prompts(pipe, ["red", "blue"], 16))
    diffusion = Diffusion(pipe.unet, training_scheduler(pipe), predict)
    parameters = method.attach(pipe.unet)
    config = section("train", TrainConfig, epochs=2, batch_size=2, learning_rate=1e-2)
    records = list(fit(diffusion, data, method, parameters, config, Accelerator(cpu=True)))
    assert [r["event"] for r in records] == ["epoch", "restart", "epoch"]
    generate = section("generate", GenerateConfig, num_inference_steps=2)
    trained = next(sample(pipe, ["red"], [1], generate, 16))
    save_diffusers(tmp_path / "adapter.safetensors", method.factors(), {})
    other = load_pipeline(model_config(pipe.config._name_or_path))
    plain = next(sample(other, ["red"], [1], generate, 16))
    load_adapter(other, tmp_path / "adapter.safetensors")
    loaded = next(sample(other, ["red"], [1], generate, 16))
    assert loaded.tobytes() == trained.tobytes()
    assert plain.tobytes() != trained.tobytes()


def test_a_folder_that_holds_no_model_is_named(tmp_path):
    with pytest.raises(InputError, match=r"model.name = .* cannot be loaded"):
        load_pipeline(model_config(tmp_path))


def test_the_central_square_is_kept():
    picture = Image.new("RGB", (40, 20), "white")
    picture.paste("red", (10, 0, 30, 20))
    assert square(picture, 10).getcolors() == [(100, (255, 0, 0))]
