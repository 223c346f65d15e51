"""inspect, export and resize as a user types them."""

import json
import shlex

import pytest
import torch
from safetensors.torch import save_file

from aclora.cli.main import main
from aclora.lora.export import write
from aclora.lora.files import read

LAYERS = [f"down_blocks.0.attentions.0.transformer_blocks.0.attn2.{end}" for end in ("to_q", "to_k", "to_out.0")]
HEADER = {"method": "aclora", "trigger": "zxq style", "style": "fog"}


@pytest.fixture
def adapter(tmp_path, monkeypatch):
    """A diffusers file of three layers, made for SD 1.x by its widths, in the working directory."""
    monkeypatch.chdir(tmp_path)
    rng = torch.Generator().manual_seed(0)
    widths = (320, 768, 320)
    fall = 0.5 ** torch.arange(6)[:, None]
    factors = {
        name: (torch.randn(6, k, generator=rng) * fall ** (i + 1), torch.randn(320, 6, generator=rng))
        for i, (name, k) in enumerate(zip(LAYERS, widths, strict=True))
    }
    write(tmp_path / "fog.safetensors", factors, HEADER, "diffusers")
    return factors


def run(capsys, status, *command):
    """What a command prints: on stdout where it succeeds, on stderr where it does not."""
    assert main([str(word) for word in command]) == status
    out, err = capsys.readouterr()
    return out if status == 0 else err


def test_inspect_shows_each_layer(adapter, capsys):
    text = run(capsys, 0, "inspect", "fog.safetensors")
    assert text.startswith("fog.safetensors: diffusers\n")
    assert "trigger: zxq style" in text
    for name, (a, b) in adapter.items():
        d = torch.linalg.svdvals(b @ a)
        (line,) = (line for line in text.splitlines() if f" {name} " in line)
        rank, rank90, rank99, norm, bars, first = line.split()[1:7]
        energy = d.square().cumsum(0) / d.square().sum()
        assert (int(rank), int(rank90), int(rank99)) == (6, *[int((energy < p).sum()) + 1 for p in (0.9, 0.99)])
        assert float(norm) == pytest.approx((b @ a).norm().item(), rel=1e-3)
        assert float(first) == pytest.approx(d[0].item(), rel=1e-2)
        assert bars[0] == "█"
    assert "UNet layers: 3, text encoder layers: 0, parameters: " in text


def test_inspect_prints_the_same_as_json(adapter, capsys):
    report = json.loads(run(capsys, 0, "inspect", "fog.safetensors", "--json"))
    assert (report["format"], report["header"]) == ("diffusers", HEADER)
    assert set(report["layers"]) == set(adapter)
    for name, (a, b) in adapter.items():
        row = report["layers"][name]
        torch.testing.assert_close(torch.tensor(row["values"]), torch.linalg.svdvals(b @ a)[:6], rtol=1e-4, atol=1e-4)
    total = sum((b @ a).norm().item() ** 2 for a, b in adapter.values()) ** 0.5
    assert report["totals"]["norm"] == pytest.approx(total, rel=1e-5)
    assert report["totals"]["parameters"] == sum(a.numel() + b.numel() for a, b in adapter.values())
    assert (report["totals"]["layers"], report["totals"]["rank"]) == (3, [6, 6])


@pytest.mark.parametrize(("to", "out"), [("peft", "p"), ("diffusers", "d.safetensors"), ("kohya", "k.safetensors")])
def test_export_as_trained(adapter, capsys, to, out):
    assert (
        run(capsys, 0, "export", "fog.safetensors", "--to", to, "--out", out)
        == f"{out}: {to}, UNet layers: 3, rank 6\n"
    )
    found = read(out)
    assert found.format == to
    assert found.header.items() >= HEADER.items()
    assert all(torch.equal(x, y) for n in LAYERS for x, y in zip(found.factors[n], adapter[n], strict=True))


def test_there_and_back_is_the_same_file(adapter, capsys, tmp_path):
    for source, to, out in (("fog.safetensors", "peft", "p"), ("p", "diffusers", "back.safetensors")):
        run(capsys, 0, "export", source, "--to", to, "--out", out)
    assert (tmp_path / "back.safetensors").read_bytes() == (tmp_path / "fog.safetensors").read_bytes()


def test_export_cuts(adapter, capsys):
    def ranks(*how):
        run(capsys, 0, "export", "fog.safetensors", "--to", "diffusers", "--out", "o.safetensors", *how)
        return [len(a) for a, _ in (read("o.safetensors").factors[n] for n in LAYERS)]

    assert ranks("--rank", 2) == [2, 2, 2]
    each = ranks("--energy", 0.98, "--per-layer")
    assert len(set(each)) > 1
    assert ranks("--energy", 0.98) == [max(each)] * 3
    assert read("o.safetensors").header["resized"] == "energy 0.98"


def test_resize_keeps_the_format_and_prints_what_it_lost(adapter, capsys):
    run(capsys, 0, "export", "fog.safetensors", "--to", "kohya", "--out", "k.safetensors")
    text = run(capsys, 0, "resize", "k.safetensors", "--out", "small.safetensors", "--sv-fro", 0.9)
    found = read("small.safetensors")
    assert (found.format, found.header["resized"]) == ("kohya", "sv_fro 0.9")
    assert found.header["ss_base_model_version"] == "sd_v1"
    lost = 0
    for name, (a, b) in adapter.items():
        x, y = found.factors[name]
        share = ((y @ x).norm() / (b @ a).norm()).item()
        assert 0.9 <= share <= 1
        lost = max(lost, ((y @ x - b @ a).norm() / (b @ a).norm()).item())
    assert f"at most {lost:.3f}" in text
    run(capsys, 0, "resize", "fog.safetensors", "--out", "two.safetensors", "--rank", 2)
    assert {len(a) for a, _ in read("two.safetensors").factors.values()} == {2}


def test_layers_of_the_text_encoder_are_counted(adapter, capsys):
    text = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    tensors = {f"unet.{LAYERS[0]}.lora_A.weight": torch.ones(1, 4), f"unet.{LAYERS[0]}.lora_B.weight": torch.ones(4, 1)}
    tensors |= {f"{text}.lora_A.weight": torch.ones(1, 5), f"{text}.lora_B.weight": torch.ones(5, 1)}
    save_file(tensors, "both.safetensors")
    assert "UNet layers: 1, text encoder layers: 1" in run(capsys, 0, "inspect", "both.safetensors")
    out = run(capsys, 0, "export", "both.safetensors", "--to", "peft", "--out", "p")
    assert "left out: text encoder layers, 1" in out


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("inspect nowhere.safetensors", "nowhere.safetensors: no such file or folder"),
        ("inspect broken.safetensors", "no whole safetensors file"),
        ("export old.ckpt --to kohya --out o.safetensors", "is pickled"),
        ("resize broken.safetensors --out o.safetensors --rank 2", "no whole safetensors file"),
        ("resize fog.safetensors --out o.safetensors", "resize needs --sv-fro"),
        ("resize fog.safetensors --out o.safetensors --sv-fro 90", "sv_fro = 90.0: must be above 0 and at most 1"),
        ("resize fog.safetensors --out fog.safetensors --rank 2", "is the adapter that is read"),
        ("export fog.safetensors --to kohya --out fog.pt", "--out = 'fog.pt': must be a file ending in .safetensors"),
        ("export fog.safetensors --to peft --out broken.safetensors", "must be a folder"),
        ("export fog.safetensors --to diffusers --out broken.safetensors/o.safetensors", "cannot be written"),
        ("export fog.safetensors --to peft --out o --per-layer", "--per-layer = True: must be used with --energy"),
        ("export fog.safetensors --to peft --out o --rank 2 --energy 0.9", "--energy = 0.9: must be left out beside"),
        ("export narrow.safetensors --to kohya --out new/o.safetensors --base sd15", "(4, 4), there it is (320, 320)"),
        ("export either.safetensors --to kohya --out new/o.safetensors", "--base is missing"),
        ("resize nan.safetensors --out o.safetensors --rank 2", "is not finite"),
    ],
)
def test_unusable_input_is_one_line_and_status_2(adapter, capsys, tmp_path, command, expected):
    (tmp_path / "broken.safetensors").write_bytes((tmp_path / "fog.safetensors").read_bytes()[:5000])
    torch.save({}, tmp_path / "old.ckpt")
    pair = (torch.ones(1, 4), torch.ones(4, 1))
    write(tmp_path / "narrow.safetensors", {LAYERS[0]: pair}, {}, "diffusers")
    write(tmp_path / "either.safetensors", {LAYERS[0]: adapter[LAYERS[0]]}, {}, "diffusers")
    save_file({f"{LAYERS[0]}.lora_A.weight": pair[0] / 0, f"{LAYERS[0]}.lora_B.weight": pair[1]}, "nan.safetensors")
    before = sorted(tmp_path.iterdir())
    text = run(capsys, 2, *shlex.split(command))
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert expected in text
    assert sorted(tmp_path.iterdir()) == before


def test_no_text_of_a_file_reaches_the_terminal_as_it_is(adapter, capsys, tmp_path):
    hostile = "\x1b]0;owned\x07\u202e\x9b31m"
    name = f"a{hostile}\n.safetensors"
    write(tmp_path / name, adapter, {"trigger": hostile}, "diffusers")
    texts = [
        run(capsys, 0, "inspect", name),
        run(capsys, 0, "inspect", name, "--json"),
        run(capsys, 0, "export", name, "--to", "kohya", "--out", f"k{name}"),
        run(capsys, 2, "inspect", f"nowhere{name}"),
        run(capsys, 2, "export", name, "--to", "kohya", "--out", name),
    ]
    for text in texts:
        assert all(line.isprintable() for line in text.split("\n"))
    assert r"trigger: \x1b]0;owned\x07\u202e\x9b31m" in texts[0]
    assert json.loads(texts[1])["header"] == {"trigger": hostile}
    assert all(text.startswith("error: ") and text.count("\n") == 1 for text in texts[3:])


def test_an_adapter_of_another_unet_becomes_a_file_that_names_no_base(adapter, capsys):
    pair = (torch.ones(1, 4), torch.ones(4, 1))
    write("narrow.safetensors", {LAYERS[0]: pair}, {}, "diffusers")
    said = run(capsys, 0, "export", "narrow.safetensors", "--to", "kohya", "--out", "k.safetensors")
    assert "its layers are those of none of sd15, sd21, sdxl: the header names no base model" in said
    assert "ss_base_model_version" not in read("k.safetensors").header
    run(capsys, 0, "export", "fog.safetensors", "--to", "kohya", "--out", "k.safetensors")
    assert read("k.safetensors").header["ss_base_model_version"] == "sd_v1"


@pytest.mark.parametrize("command", ["inspect", "export", "resize"])
def test_the_examples_in_help_run(adapter, capsys, tmp_path, command):
    shown = run(capsys, 0, command, "--help")
    lines = [line.strip() for line in shown.splitlines()]
    examples = [shlex.split(line) for line in lines if line.startswith(f"aclora {command} ")]
    assert len(examples) == 2
    for words in examples:
        source = tmp_path / words[2]
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_bytes((tmp_path / "fog.safetensors").read_bytes())
        run(capsys, 0, *words[1:])
