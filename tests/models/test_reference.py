"""Each family against diffusers itself: what its own pipeline gives the network, and what comes out.

The network inside a pipeline's call is hooked; our `predict` is hooked in the same way for the same latents, prompts
and time.
"""

import inspect

import pytest
import torch

PROMPTS = ["a red house", "a small blue boat on the left"]
STEPS = 4  # for every sampler at times that the schedule has


def given(model, call):
    """What the network is given in each of its calls, by argument, and what it gives back."""
    names = list(inspect.signature(type(model.network).forward).parameters)[1:]
    calls = []

    def before(module, args, kwargs):
        calls.append(dict(zip(names, args, strict=False)) | kwargs)

    def after(module, args, kwargs, out):
        calls[-1]["out"] = out[0]

    hooks = [
        model.network.register_forward_pre_hook(before, with_kwargs=True),
        model.network.register_forward_hook(after, with_kwargs=True),
    ]
    with torch.no_grad():
        call()
    for hook in hooks:
        hook.remove()
    return [flat(c) for c in calls]


def flat(call):
    """The tensors of a call, those in a dictionary too; a single time is every picture's."""
    nested = call.pop("added_cond_kwargs", None) or {}
    tensors = {k: v for k, v in (call | nested).items() if isinstance(v, torch.Tensor)}
    n = len(tensors["out"])
    return tensors | {"timestep": tensors["timestep"].expand(n).float()}


def first_input(model):
    """What the network's first argument is called."""
    return list(inspect.signature(type(model.network).forward).parameters)[1]


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_our_network_is_given_what_the_pipelines_is(model, guidance):
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    theirs = given(model, lambda: model.sample(PROMPTS, generators, 16, STEPS, guidance))
    assert len(theirs) == STEPS
    text = model.encode_prompts(PROMPTS, 16)
    for their in theirs:
        if guidance > 1:  # first without a prompt, then with it
            assert len(their["out"]) == 2 * len(PROMPTS)
            their = {k: v[len(PROMPTS) :] for k, v in their.items()}
        latents, times = their[first_input(model)], their["timestep"]
        (ours,) = given(model, lambda x=latents, t=times: model.predict(x, t, text))
        assert set(ours) == set(their)
        for name, tensor in their.items():
            torch.testing.assert_close(ours[name], tensor, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_noisy_latents_are_what_the_pipelines_scheduler_makes_of_them(model):
    """At the times that the pipeline visits, by the scheduler's own forward process and scaling of the input."""
    scheduler = model.pipe.scheduler
    x, noise = torch.randn(2, STEPS, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for i in range(STEPS):
        scheduler.set_timesteps(STEPS)  # anew: it counts its steps
        time = scheduler.timesteps[i]
        if hasattr(scheduler, "scale_noise"):
            theirs = scheduler.scale_noise(x[i : i + 1], time[None], noise[i : i + 1])
        else:
            theirs = scheduler.add_noise(x[i : i + 1], noise[i : i + 1], time[None])
            theirs = scheduler.scale_model_input(theirs, time)
        ours = model.noisy(x[i : i + 1], noise[i : i + 1], time[None].to(model.times_at(torch.zeros(1)).dtype))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_perfect_prediction_leads_the_pipelines_scheduler_to_the_picture(model):
    """From pure noise, in any number of steps: the sampler and our target mean the same by a prediction."""
    scheduler = model.pipe.scheduler
    scheduler.set_timesteps(20)
    x, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    current = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    for time in scheduler.timesteps:
        seen = scheduler.scale_model_input(current, time) if hasattr(scheduler, "scale_model_input") else current
        own = time[None].to(model.times_at(torch.zeros(1)).dtype)
        # the noise that is in the latents now, as the network would see it
        prediction = model.target(x, _noise_in(model, seen, x, own), own)
        current = scheduler.step(prediction, time, current, return_dict=False)[0]
    torch.testing.assert_close(current, x, rtol=0, atol=0.02)


def _noise_in(model, seen, x, time):
    """ε of seen = noisy(x, ε, time): `noisy` is linear in it."""
    without = model.noisy(x, torch.zeros_like(x), time)
    factor = model.noisy(torch.zeros_like(x), torch.ones_like(x), time)
    return (seen - without) / factor
