"""The methods on a tiny UNet: what they change, when, and what comes out as files."""

import json

import pytest
import torch
from safetensors import safe_open

from aclora.core.errors import InputError
from aclora.core.method import EpochEnd, method_named
from aclora.lora.export import save_diffusers, save_tuner
from aclora.lora.tuner import matching
from aclora.models.sampling import load_adapter
from tests.conftest import make_method, model_at


def attach(tiny, name="aclora", seed=0, **knobs):
    torch.manual_seed(seed)
    made = make_method(name, **knobs)
    parameters = made.attach(tiny.network, tiny.adapter_layers)
    return made, parameters


def predict(tiny):
    rng = torch.Generator().manual_seed(5)
    x, text = torch.randn(2, 4, 8, 8, generator=rng), torch.randn(2, 3, 32, generator=rng)
    with torch.no_grad():
        return tiny.network(x, torch.tensor([1, 500]), text, return_dict=False)[0]


def disturb(parameters, seed=1):
    """Weights as training might leave them."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in parameters:
            p += 0.1 * torch.randn(p.shape, generator=rng)


def end(epoch, epochs=10, loss=0.4, optimizer=None, probes=None):
    optimizer = optimizer or torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
    return EpochEnd(
        epoch, epochs, loss, torch.Generator().manual_seed(epoch), optimizer, iter(probes or [0.5, 0.6]).__next__
    )


# each method's own knob of its rank
RANKS = {"lora": "rank", "aclora": "max_rank", "trilora": "rank", "dora": "rank", "loha": "rank", "lokr": "rank"}
RANKS |= {"adalora": "init_r"}
METHODS = (*RANKS, "oft")  # without a rank
FACTORED = ("lora", "aclora", "trilora", "adalora")
ATTENTION = (".to_q", ".to_k", ".to_v", ".to_out.0")


def knobs_of(name, rank):
    if name == "oft":
        return {"block_size": 4}
    return {RANKS[name]: rank} | ({"target_r": 2} if name == "adalora" else {})


@pytest.mark.parametrize("name", METHODS)
def test_the_function_is_unchanged_at_the_start(tiny, name):
    before = predict(tiny)
    made, parameters = attach(tiny, name, **knobs_of(name, 5))
    # DoRA divides each column by its norm and multiplies by it again
    torch.testing.assert_close(predict(tiny), before, rtol=0, atol=1e-5 if name == "dora" else 0)
    assert parameters
    assert all(p.requires_grad and p.dtype == torch.float32 for p in parameters)
    assert all(a.shape[0] == b.shape[1] == 5 for a, b in made.factors().values())
    assert bool(made.factors()) == (name in FACTORED) != bool(made.weights())


@pytest.mark.parametrize("name", METHODS)
def test_every_parameter_matters_and_the_base_stays(tiny, name):
    frozen = {n: p.clone() for n, p in tiny.network.named_parameters()}
    _, parameters = attach(tiny, name, **knobs_of(name, 3))
    disturb(parameters)
    before = predict(tiny)
    for p in parameters:
        with torch.no_grad():
            p += 0.5
            assert not torch.equal(predict(tiny), before), p.shape
            p -= 0.5
    now = dict(tiny.network.named_parameters())
    for n, p in frozen.items():
        kept = next(v for k, v in now.items() if k.replace(".base_layer", "").replace(".base.", ".") == n)
        assert torch.equal(kept, p)


@pytest.mark.parametrize("name", METHODS)
def test_what_is_saved_is_what_was_trained(tiny, tiny_folder, tmp_path, name):
    made, parameters = attach(tiny, name, **knobs_of(name, 3))
    disturb(parameters)
    if factors := made.factors():
        place = tmp_path / "lora.safetensors"
        save_diffusers(place, factors, {})
    else:
        place = tmp_path
        save_tuner(place, *made.weights(), {"trigger": "zxq style"})
    other = model_at(tiny_folder)
    before = predict(other)
    load_adapter(other, place)
    assert not torch.allclose(predict(other), before, atol=1e-3)
    exact = name not in ("trilora", "adalora")
    torch.testing.assert_close(predict(other), predict(tiny), rtol=0 if exact else 1e-4, atol=0 if exact else 1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_the_layers_are_the_attentions(tiny, name):
    expected = [n for n, _ in tiny.network.named_modules() if n.endswith(ATTENTION)]
    made, _ = attach(tiny, name, **knobs_of(name, 2))
    assert made.layer_names() == expected


@pytest.mark.parametrize("name", RANKS)
def test_a_rank_above_a_layers_side_names_its_knob(tiny, name):
    with pytest.raises(InputError, match=rf"{name}.{RANKS[name]} = 40: must be at most 32, .*attn1.to_q"):
        attach(tiny, name, **knobs_of(name, 40))


def test_triloras_sigma_starts_as_the_weights_own(tiny):
    weights = {n: m.weight.clone() for n, m in matching(tiny.network, tiny.adapter_layers).items()}
    made, _ = attach(tiny, "trilora", rank=4)
    for name, layer in made.tuned.items():
        own = torch.linalg.svdvals(weights[name].double())[:4].float()
        torch.testing.assert_close(layer.sigma.detach(), own, rtol=1e-3, atol=1e-4)


def test_triloras_change_is_v_sigma_u(tiny):
    made, parameters = attach(tiny, "trilora", rank=4)
    disturb(parameters)
    for name, layer in made.tuned.items():
        x = torch.randn(5, layer.base.in_features, generator=torch.Generator().manual_seed(0))
        change = layer.lora_B @ torch.diag(layer.sigma) @ layer.lora_A
        torch.testing.assert_close(layer(x), layer.base(x) + x @ change.T, rtol=1e-4, atol=1e-5)
        a, b = made.factors()[name]
        torch.testing.assert_close(b @ a, change, rtol=1e-5, atol=1e-6)


def trained(tiny, steps=30, **knobs):
    """AdaLoRA after some steps towards a fixed target of one layer."""
    made, parameters = attach(tiny, "adalora", init_r=4, target_r=2, **knobs)
    made.begin(steps)
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    wanted = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    rng = torch.Generator().manual_seed(5)
    x, text = torch.randn(2, 4, 8, 8, generator=rng), torch.randn(2, 3, 32, generator=rng)
    for step in range(1, steps + 1):
        out = tiny.network(x, torch.tensor([1, 500]), text, return_dict=False)[0]
        penalty = made.penalty()
        ((out - wanted).square().mean() + (0 if penalty is None else penalty)).backward()
        optimizer.step()
        made.step_end(step)
        optimizer.zero_grad()
    return made


def test_adalora_spends_its_budget_of_rank(tiny):
    made = trained(tiny)
    ranks = [int((layer.lora_E["default"] != 0).sum()) for layer in made.tuned.values()]
    assert sum(ranks) == 2 * len(ranks)
    assert len(set(ranks)) > 1  # some layers were worth more than others


def test_adaloras_penalty_keeps_factors_orthogonal(tiny, tiny_folder):
    def off(made):
        made.config = made.config.model_copy(update={"orth_reg_weight": 1.0})
        return made.penalty().item()

    other = model_at(tiny_folder)
    assert off(trained(tiny, orth_reg_weight=1.0)) < off(trained(other, orth_reg_weight=0.0))


@pytest.mark.parametrize("knob", [{"warmup": 0.6}, {"final": 0.1}])
def test_adaloras_schedule_matters(tiny, tiny_folder, knob):
    other = model_at(tiny_folder)
    one, changed = (m.factors() for m in (trained(tiny), trained(other, **knob)))
    assert any(not torch.equal(one[n][0], changed[n][0]) for n in one)


def test_every_attention_layer_gets_one_and_nothing_else_trains(tiny):
    expected = {n for n, _ in tiny.network.named_modules() if n.endswith(ATTENTION)}
    made, parameters = attach(tiny, "lora", rank=2)
    assert set(made.factors()) == expected
    trained = {id(p) for p in parameters}
    assert trained == {id(p) for p in tiny.network.parameters() if p.requires_grad}


def test_base_trains_nothing(tiny):
    made, parameters = attach(tiny, "base")
    assert (parameters, made.factors(), made.signal(), made.epoch_end(end(1))) == ([], {}, None, None)


def test_a_rank_above_a_layers_side_names_knob_layer_and_bound(tiny):
    with pytest.raises(InputError, match=r"aclora.max_rank = 40: must be at most 32, .*attn1.to_q"):
        attach(tiny, "aclora", max_rank=40)


def test_an_unknown_method_says_what_was_meant():
    with pytest.raises(InputError, match="did you mean 'aclora'"):
        method_named("aclroa")


def test_restart_comes_every_e_epochs_and_not_after_the_last(tiny):
    made, parameters = attach(tiny, max_rank=4, restart_every=3)
    disturb(parameters)
    done = [e for e in range(1, 10) if made.epoch_end(end(e, epochs=9))]
    assert done == [3, 6]


def test_a_record_tells_the_loss_since_the_last_restart_and_what_was_done(tiny):
    made, parameters = attach(tiny, max_rank=4, restart_every=2)
    disturb(parameters)
    made.epoch_end(end(1, loss=0.6))
    record = made.epoch_end(end(2, loss=0.2, probes=[0.31, 0.32]))
    assert record["loss"] == pytest.approx(0.4)
    assert record["p"] == pytest.approx(1 - 0.4**1.2)
    assert (record["probe_before"], record["probe_after"]) == (0.31, 0.32)
    assert record["I"] == max(1, *record["I_A"], *record["I_B"])
    assert record["values"].shape == (len(made.layers), 2, 4)
    made.epoch_end(end(3, loss=0.1))
    assert made.epoch_end(end(4, loss=0.1))["loss"] == pytest.approx(0.1)
    record.pop("values")
    json.dumps(record)


def test_alpha_moves_the_threshold(tiny):
    made, parameters = attach(tiny, max_rank=4, restart_every=1, alpha=0.5)
    disturb(parameters)
    assert made.epoch_end(end(1, loss=0.25))["p"] == pytest.approx(1 - 0.25**0.55)


@pytest.mark.parametrize("way", ["keep", "reset", "project"])
def test_adams_moments(tiny, way):
    made, parameters = attach(tiny, max_rank=4, restart_every=1, optimizer_state=way)
    optimizer = torch.optim.AdamW(parameters)
    disturb(parameters)
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    before = [optimizer.state[p]["exp_avg"].clone() for p in parameters]
    index = made.epoch_end(end(1, optimizer=optimizer))["I"]
    after = [optimizer.state[p]["exp_avg"] for p in parameters]
    if way == "keep":
        assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
    if way == "reset":
        assert not any(m.any() for m in after)
        assert all(optimizer.state[p]["step"] == 0 for p in parameters)
    if way == "project":
        assert all(torch.linalg.matrix_rank(m) == index for m in after)
        assert all(y.norm() < x.norm() for x, y in zip(before, after, strict=True))


def test_not_finite_weights_stop_with_layer_and_epoch(tiny):
    made, parameters = attach(tiny, max_rank=4, restart_every=2)
    made.epoch_end(end(1))
    with torch.no_grad():
        parameters[0][0, 0] = float("nan")
    with pytest.raises(InputError, match=r"attn1.to_q is not finite at the RESTART of epoch 2"):
        made.epoch_end(end(2))


@pytest.mark.parametrize("by", ["energy", "unified", "per_layer"])
def test_the_signal_keeps_what_the_threshold_asks(tiny, by):
    made, parameters = attach(tiny, max_rank=6, restart_every=1, signal_rank=by)
    disturb(parameters)
    index = made.epoch_end(end(1, loss=0.5))["I"]
    disturb(parameters, seed=2)
    cut, report = made.signal()
    full = made.factors()
    ranks = {a.shape[0] for a, _ in cut.values()}
    assert report["rank"] == {name: a.shape[0] for name, (a, _) in cut.items()}
    if by == "unified":
        assert ranks == {index}
    if by == "energy":
        assert len(ranks) == 1
    for name, (a, b) in cut.items():
        whole = full[name][1] @ full[name][0]
        lost = ((whole - b @ a).norm() / whole.norm()).item()
        assert lost == pytest.approx(report["error"][name], abs=1e-4)
        if by != "unified":
            assert 1 - lost**2 >= report["p"] - 1e-4


def test_a_run_without_a_restart_still_has_its_threshold(tiny):
    made, parameters = attach(tiny, max_rank=4, restart_every=10)
    disturb(parameters)
    assert [made.epoch_end(end(e, epochs=3, loss=0.5)) for e in (1, 2, 3)] == [None] * 3
    assert made.signal()[1]["p"] == pytest.approx(1 - 0.5**2)


def test_a_saved_adapter_loads_into_diffusers_as_it_was(tiny, tiny_folder, tmp_path):
    made, parameters = attach(tiny, "lora", rank=3)
    disturb(parameters)
    save_diffusers(tmp_path / "pytorch_lora_weights.safetensors", made.factors(), {"trigger": "zxq style"})
    for load in (
        lambda model: load_adapter(model, tmp_path / "pytorch_lora_weights.safetensors"),
        lambda model: model.pipe.load_lora_weights(tmp_path),
    ):
        other = model_at(tiny_folder)
        load(other)
        assert torch.equal(predict(other), predict(tiny))
    with safe_open(tmp_path / "pytorch_lora_weights.safetensors", "pt") as file:
        assert file.metadata()["trigger"] == "zxq style"


def test_the_same_adapter_is_the_same_file(tmp_path):
    factors = {
        "mid_block.a": (torch.ones(2, 5), torch.ones(4, 2)),
        "mid_block.b": (torch.zeros(2, 5), torch.ones(3, 2)),
    }
    header = {"trigger": "zxq style", "method": "lora", "style": "x", "base_model": "y"}
    written = set()
    for _ in range(20):
        save_diffusers(tmp_path / "a.safetensors", factors, header)
        written.add((tmp_path / "a.safetensors").read_bytes())
    assert len(written) == 1
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("unet.mid_block.b.lora_B.weight"), torch.ones(3, 2))
        assert file.metadata()["style"] == "x"


def test_mixed_ranks_load_at_their_own_scale(tiny, tiny_folder, tmp_path):
    made, parameters = attach(tiny, max_rank=6, restart_every=1, signal_rank="per_layer")
    disturb(parameters)
    with torch.no_grad():  # one layer of nearly rank one beside flat ones
        made.layers[next(iter(made.layers))][0][1:] *= 1e-3
    made.epoch_end(end(1, loss=0.1))
    cut, report = made.signal()
    assert len(set(report["rank"].values())) > 1
    save_diffusers(tmp_path / "signal.safetensors", cut, {})
    other = model_at(tiny_folder)
    load_adapter(other, tmp_path / "signal.safetensors")
    for name, (a, b) in cut.items():
        layer = other.network.get_submodule(name)
        delta = layer.get_delta_weight("default_0")
        torch.testing.assert_close(delta, b @ a, rtol=1e-5, atol=1e-6)
