"""Reading LoRA files of any trainer, refusing what cannot be read, and cutting ranks."""

import json

import pytest
import torch
from safetensors.torch import save_file

from aclora.core.errors import InputError
from aclora.lora.files import read
from aclora.lora.resize import resize, spectrum

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
KOHYA = "lora_unet_" + LAYER.replace(".", "_")


def pair(d=6, k=5, r=2, seed=0, dtype=torch.float32):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(r, k, generator=rng).to(dtype), torch.randn(d, r, generator=rng).to(dtype)


def saved(tmp_path, tensors, header=None):
    tensors = {key: tensor.clone().contiguous() for key, tensor in tensors.items()}
    save_file(tensors, tmp_path / "a.safetensors", header)
    return tmp_path / "a.safetensors"


def kohya(a, b, alpha=None, layer=KOHYA):
    tensors = {f"{layer}.lora_down.weight": a, f"{layer}.lora_up.weight": b}
    return tensors | ({} if alpha is None else {f"{layer}.alpha": torch.tensor(float(alpha))})


def peft_folder(tmp_path, a, b, **config):
    tensors = {f"base_model.model.{LAYER}.lora_A.weight": a, f"base_model.model.{LAYER}.lora_B.weight": b}
    saved(tmp_path, tensors).rename(tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"} | config), encoding="utf-8")
    return tmp_path


class TestRead:
    @pytest.mark.parametrize(
        ("down", "up"),
        [
            (f"unet.{LAYER}.lora_A.weight", f"unet.{LAYER}.lora_B.weight"),
            (f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"),
            (f"unet.{LAYER}.lora.down.weight", f"unet.{LAYER}.lora.up.weight"),
            (f"unet.{LAYER}.lora_down.weight", f"unet.{LAYER}.lora_up.weight"),
            *[
                tuple(f"{p}{LAYER.replace('attn1.', 'attn1.processor.')}_lora.{end}.weight" for end in ("down", "up"))
                for p in ("unet.", "")
            ],
        ],
    )
    def test_diffusers_names_old_and_new(self, tmp_path, down, up):
        a, b = pair()
        found = read(saved(tmp_path, {down: a, up: b}))
        assert (found.format, list(found.factors)) == ("diffusers", [LAYER])
        assert all(torch.equal(x, y) for x, y in zip(found.factors[LAYER], (a, b), strict=True))

    def test_an_old_processors_to_out_is_the_linear_layer_in_it(self, tmp_path):
        a, b = pair()
        stem = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_out_lora"
        found = read(saved(tmp_path, {f"{stem}.down.weight": a, f"{stem}.up.weight": b}))
        assert list(found.factors) == ["mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"]

    @pytest.mark.parametrize(("alpha", "scale"), [(1, 0.5), (4, 2), (3, 1.5), (2, 1), (None, 1)])
    def test_kohyas_alpha(self, tmp_path, alpha, scale):
        a, b = pair()
        x, y = read(saved(tmp_path, kohya(a, b, alpha))).factors[LAYER]
        assert torch.equal(x, a)
        assert torch.equal(y, b * scale)

    def test_a_scale_is_not_rounded_to_half_precision(self, tmp_path):
        a, b = pair(dtype=torch.float16)
        x, y = read(saved(tmp_path, kohya(a, b, 0.7))).factors[LAYER]
        assert torch.equal(y @ x, (b.float() * 0.35) @ a.float())

    def test_kohyas_sdxl_names(self, tmp_path):
        layer = "lora_unet_output_blocks_1_1_transformer_blocks_7_attn2_to_out_0"
        found = read(saved(tmp_path, kohya(*pair(), 2, layer)))
        assert list(found.factors) == ["up_blocks.0.attentions.1.transformer_blocks.7.attn2.to_out.0"]

    @pytest.mark.filterwarnings("ignore:The following alpha_pattern keys did not match")  # that is what is tried
    @pytest.mark.parametrize(
        ("config", "scale"),
        [
            ({"r": 2, "lora_alpha": 2}, 1),
            ({"r": 2, "lora_alpha": 8}, 4),
            ({"r": 2, "lora_alpha": 4, "use_rslora": True}, 4 / 2**0.5),
            ({"r": 16, "lora_alpha": 16, "rank_pattern": {"to_q": 2}}, 8),
            ({"r": 16, "lora_alpha": 16, "rank_pattern": {"to_q": 2}, "alpha_pattern": {"attn1.to_q": 1}}, 0.5),
            ({"r": 2, "lora_alpha": 3, "alpha_pattern": {"attn2.to_q": 5, "o_q": 5}}, 1.5),
            ({"r": 2, "lora_alpha": 2, "alpha_pattern": {f"^{LAYER}": 6, "to_q": 4}}, 3),
            ({"r": 2, "lora_alpha": 2, "alpha_pattern": {"^to_q": 6, "to_q$": 4}}, 2),
            ({"r": 2, "lora_alpha": 2, "alpha_pattern": {r".*\.attn1\.to_q": 6}}, 3),
            ({"r": 2, "lora_alpha": 2, "alpha_pattern": {rf".*\.{LAYER}": 6}}, 1),
            ({"r": 2, "lora_alpha": 2, "alpha_pattern": {"to_q": 6, LAYER: 4}}, 3),
        ],
    )
    def test_pefts_settings_as_peft_applies_them(self, tmp_path, config, scale):
        from peft import PeftModel

        a, b = pair()
        x, y = read(peft_folder(tmp_path, a, b, target_modules=[LAYER], **config)).factors[LAYER]
        torch.testing.assert_close(y @ x, scale * b @ a)

        model = torch.nn.Module()  # whose one layer has that name
        place = model
        for part in LAYER.split(".")[:-1]:
            place.add_module(part, torch.nn.Module())
            place = place.get_submodule(part)
        place.to_q = torch.nn.Linear(5, 6)
        loaded = PeftModel.from_pretrained(model, tmp_path).base_model.model.get_submodule(LAYER)
        torch.testing.assert_close(loaded.get_delta_weight("default"), y @ x)

    def test_a_file_in_pefts_folder_is_the_folder(self, tmp_path):
        folder = peft_folder(tmp_path, *pair(), r=2, lora_alpha=8, base_model_name_or_path="owner/model")
        found, same = read(folder), read(folder / "adapter_model.safetensors")
        assert torch.equal(found.factors[LAYER][1], same.factors[LAYER][1])
        assert (found.format, found.header) == ("peft", {"base_model": "owner/model"})

    def test_diffusers_settings_in_the_header(self, tmp_path):
        a, b = pair()
        tensors = {f"unet.{LAYER}.lora_A.weight": a, f"unet.{LAYER}.lora_B.weight": b}
        said = {"unet.r": 2, "unet.lora_alpha": 6, "text_encoder.r": 9}
        header = {"lora_adapter_metadata": json.dumps(said), "trigger": "zxq"}
        found = read(saved(tmp_path, tensors, header))
        assert torch.equal(found.factors[LAYER][1], 3 * b)
        assert found.header == {"trigger": "zxq"}

    def test_the_text_encoders_layers_are_kept_apart(self, tmp_path):
        a, b = pair()
        text = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
        found = read(saved(tmp_path, kohya(a, b, 2) | kohya(a, b, 1, text)))
        assert (list(found.factors), list(found.text_encoder)) == ([LAYER], [text])
        assert torch.equal(found.text_encoder[text][1], b / 2)
        text = "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj"
        keys = {f"{text}.lora_linear_layer.down.weight": a, f"{text}.lora_linear_layer.up.weight": b}
        found = read(saved(tmp_path, keys))
        assert (list(found.factors), list(found.text_encoder)) == ([], [text])


def bad(tmp_path, name):
    """A file that cannot be read, and what is said of it."""
    a, b = pair()
    place = tmp_path / "a.safetensors"
    if name == "missing":
        return place, "no such file"
    if name == "pickled by its name":
        place = tmp_path / "a.ckpt"
        torch.save({"x": a}, place)
        return place, "is pickled.*convert it to safetensors"
    if name == "pickled under another name":
        torch.save({"x": a}, place)
        return place, "is pickled.*convert it to safetensors"
    if name == "an old pickle":
        torch.save({"x": a}, place, _use_new_zipfile_serialization=False)
        return place, "is pickled.*convert it to safetensors"
    if name == "truncated":
        saved(tmp_path, kohya(a, b))
        place.write_bytes(place.read_bytes()[:-7])
        return place, "no whole safetensors file"
    if name == "empty":
        place.touch()
        return place, "no whole safetensors file"
    if name == "no adapter":
        return saved(tmp_path, {"model.weight": a}), "holds no LoRA: its keys are model.weight"
    if name == "no B":
        return saved(tmp_path, {f"{KOHYA}.lora_down.weight": a}), "attn1_to_q has lora_A but no lora_B"
    if name == "no A":
        return saved(tmp_path, {f"unet.{LAYER}.lora_B.weight": b}), "attn1.to_q has lora_B but no lora_A"
    if name == "an alpha alone":
        return saved(tmp_path, kohya(a, b) | {"lora_unet_x.alpha": a[0, 0]}), "lora_unet_x has alpha but no lora_A"
    if name == "no fit":
        return saved(tmp_path, kohya(a, b[:, :1])), r"lora_A \(2, 5\) and lora_B \(6, 1\), which do not fit"
    if name == "no matrix":
        return saved(tmp_path, kohya(a[0], b)), "do not fit"
    if name == "not finite":
        return saved(tmp_path, kohya(a / 0, b)), "is not finite"
    if name == "more than factors":
        return saved(tmp_path, kohya(a, b) | {"lora_unet_x.diff_b": a}), "lora_unet_x.diff_b is no factor"
    if name == "Flux":
        return saved(tmp_path, kohya(a, b, 1, "lora_unet_double_blocks_0_img_attn_qkv")), "is not for a UNet"
    if name == "a header that is no JSON":
        return saved(tmp_path, {f"{LAYER}.lora_A.weight": a}, {"lora_adapter_metadata": "{"}), "lora_adapter_metadata"
    if name == "a folder of other files":
        saved(tmp_path, kohya(a, b))
        return tmp_path, "no PEFT folder.*there is a.safetensors"
    if name == "PEFT's pickle":
        (tmp_path / "adapter_model.bin").touch()
        return tmp_path, "is pickled"
    folder = peft_folder(tmp_path, a, b, r=4 if name == "another rank" else 2)
    if name == "PEFT without its settings":
        (folder / "adapter_config.json").unlink()
        return folder, "adapter_config.json, which has their alpha, must lie beside them"
    if name == "PEFT's settings are no JSON":
        (folder / "adapter_config.json").write_text("[]", encoding="utf-8")
        return folder, "is no JSON object"
    assert name == "another rank"
    return folder, "has rank 2, but its settings say 4"


BAD = """missing · pickled by its name · pickled under another name · an old pickle · truncated · empty · no adapter
no B · no A · an alpha alone · no fit · no matrix · not finite · more than factors · Flux · a header that is no JSON
a folder of other files · PEFT's pickle · PEFT without its settings · PEFT's settings are no JSON · another rank"""
BAD = [name.strip() for line in BAD.splitlines() for name in line.split("·")]


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_one_line_that_says_what_to_do(tmp_path, name):
    place, said = bad(tmp_path, name)
    with pytest.raises(InputError, match=said) as caught:
        read(place)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (f"{KOHYA}.hada_w1_a", "LoHa"),
        (f"{KOHYA}.lokr_w1", "LoKr"),
        (f"{KOHYA}.dora_scale", "DoRA"),
        (f"unet.{LAYER}.lora_magnitude_vector", "DoRA"),
        (f"{KOHYA}.lora_mid.weight", "LoCon with a Tucker core"),
        (f"{KOHYA}.oft_blocks", "OFT"),
    ],
)
def test_other_kinds_are_named(tmp_path, key, kind):
    tensors = kohya(*pair()) | {key: torch.ones(2)}
    with pytest.raises(InputError, match=f"is {kind}, not the product of two factors: only PEFT's own format"):
        read(saved(tmp_path, tensors))


@pytest.mark.parametrize("name", ["loha", "lokr", "dora", "adalora", "oft"])
def test_pefts_other_tuners_are_named(tiny, tmp_path, name):
    import peft

    make = {"loha": peft.LoHaConfig, "lokr": peft.LoKrConfig, "dora": peft.LoraConfig, "adalora": peft.AdaLoraConfig}
    make["oft"] = peft.OFTConfig
    knobs = {"dora": {"use_dora": True}, "adalora": {"total_step": 9}, "oft": {"oft_block_size": 4}}.get(name, {})
    peft.get_peft_model(tiny.network, make[name](target_modules=["to_q"], **knobs)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"(?i)is {name}, not the product of two factors"):
        read(tmp_path)


class TestResize:
    def factors(self):
        """Three layers of known, different spectra; the last a convolution."""
        rng = torch.Generator().manual_seed(0)
        made = {}
        for name, fall in (("flat", 0.95), ("steep", 0.3)):
            u = torch.linalg.qr(torch.randn(20, 8, generator=rng, dtype=torch.float64))[0]
            v = torch.linalg.qr(torch.randn(16, 8, generator=rng, dtype=torch.float64))[0]
            mix = torch.randn(8, 8, generator=rng, dtype=torch.float64)  # factors are not balanced
            d = fall ** torch.arange(8)
            made[name] = (torch.linalg.inv(mix) @ (d[:, None] * v.T)).float(), (u @ mix).float()
        made["conv"] = torch.randn(6, 5, 3, 3, generator=rng), torch.randn(9, 6, 1, 1, generator=rng)
        return made

    def dense(self, pair):
        a, b = (m.double().flatten(1) for m in pair)
        return b @ a

    @pytest.mark.parametrize("s", [0.3, 0.9, 0.99, 0.99999])
    def test_sv_fro_is_the_least_rank_whose_share_reaches_it(self, s):
        factors = self.factors()
        cut, errors = resize(factors, sv_fro=s)
        for name, (a, b) in cut.items():
            d = torch.linalg.svdvals(self.dense(factors[name]))
            shares = (d.square().cumsum(0) / d.square().sum()).sqrt()
            rank = next(r for r in range(1, len(d) + 1) if shares[r - 1] >= s)
            assert a.shape[0] == b.shape[1] == min(rank, factors[name][0].shape[0])
            u, d, vh = torch.linalg.svd(self.dense(factors[name]), full_matrices=False)
            best = u[:, :rank] * d[:rank] @ vh[:rank]
            assert (self.dense((a, b)) - best).norm() <= 1e-5 * d.norm()
            assert errors[name] == pytest.approx(d[rank:].norm().item() / d.norm().item(), abs=1e-6)
            assert a.shape[1:] == factors[name][0].shape[1:]
            assert b.shape[2:] == factors[name][1].shape[2:]

    def test_energy_is_its_square(self):
        factors = self.factors()
        one, other = resize(factors, sv_fro=0.9)[0], resize(factors, energy=0.81)[0]
        assert {n: len(a) for n, (a, _) in one.items()} == {n: len(a) for n, (a, _) in other.items()}

    def test_one_rank_for_all_is_the_largest_needed(self):
        each = {len(a) for a, _ in resize(self.factors(), energy=0.8)[0].values()}
        assert len(each) > 1
        assert {len(a) for a, _ in resize(self.factors(), energy=0.8, per_layer=False)[0].values()} == {max(each)}

    def test_a_fixed_rank_and_a_bound(self):
        assert {len(a) for a, _ in resize(self.factors(), rank=2)[0].values()} == {2}
        ranks = {n: len(a) for n, (a, _) in resize(self.factors(), sv_fro=0.9, rank=3)[0].items()}
        assert ranks["flat"] == 3
        assert ranks["steep"] < 3

    def test_a_layer_that_is_low_enough_stays_as_it_is(self):
        factors = self.factors()
        for knobs in ({}, {"rank": 8}, {"rank": 500}, {"energy": 1.0}):
            cut, errors = resize(factors, **knobs)
            assert torch.equal(cut["conv"][0], factors["conv"][0])
            assert errors["conv"] == 0
        assert all(cut[n] == factors[n] for n in factors for cut in [resize(factors, rank=8)[0]])

    def test_a_layer_of_zeros_has_rank_one(self):
        cut, errors = resize({"x": (torch.ones(4, 5), torch.zeros(6, 4))}, sv_fro=0.9)
        assert cut["x"][0].shape == (1, 5)
        assert not (cut["x"][1] @ cut["x"][0]).any()
        assert errors == {"x": 0}

    def test_a_rank_above_the_layers_side(self):
        cut, _ = resize({"x": (torch.randn(9, 5), torch.randn(6, 9))}, energy=0.9999999)
        assert len(cut["x"][0]) == 5

    @pytest.mark.parametrize(
        ("knobs", "said"),
        [
            ({"sv_fro": 0}, "sv_fro = 0: must be above 0 and at most 1"),
            ({"energy": 1.5}, "energy = 1.5: must be above 0 and at most 1"),
            ({"rank": 0}, "rank = 0: must be at least 1"),
        ],
    )
    def test_bounds(self, knobs, said):
        with pytest.raises(InputError, match=said):
            resize(self.factors(), **knobs)

    def test_the_spectrum_is_the_dense_products(self):
        for factors in self.factors().values():
            values = spectrum(*factors)
            torch.testing.assert_close(values, torch.linalg.svdvals(self.dense(factors))[: len(values)])
