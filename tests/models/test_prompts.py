"""The trigger of every prompt is within what each of a model's text encoders sees, and what that costs is said."""

import json
import shutil

import pytest
import torch
from transformers import CLIPTokenizer

from aclora.core.errors import InputError
from aclora.core.model_check import prompt_readers
from aclora.core.prompts import check_trigger, fit_prompt, fit_prompts, note_of_lost, reader
from tests.conftest import ROOT, model_config

TRIGGER = "zxq style"
WORDS = "a small red house on the left and a big blue boat on the right with a yellow star in the middle of the sky"
LONG = f"{WORDS} by a green tree and a cat, {TRIGGER}"


@pytest.fixture(scope="module")
def small():
    """The small model's tokenizer: 32 tokens."""
    tokenizer = CLIPTokenizer.from_pretrained(ROOT / "models/miniature/pipeline/tokenizer")
    return [reader("tokenizer", tokenizer, None, 32)]


def seen(one, text):
    """The tokens that a text encoder is given of a text, its two ends aside."""
    ids = one.tokenizer(text, truncation=True, max_length=one.limit).input_ids
    return one.tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("text", [f"a red house, {TRIGGER}", f"  two  spaces ,, {TRIGGER}", TRIGGER, ""])
def test_a_prompt_that_fits_keeps_every_byte(small, text):
    assert fit_prompt(text, TRIGGER, small) == (text, "")


def test_every_encoder_sees_all_of_the_trigger(model):
    fitted, lost = fit_prompt(LONG, TRIGGER, model.readers)
    tokenizers = [p for name, p in model.pipe.components.items() if name.startswith("tokenizer") and p is not None]
    assert [one.tokenizer for one in model.readers] == tokenizers
    for one in model.readers:
        assert one.tokens(fitted) <= one.limit
        assert seen(one, fitted).replace(" ", "").endswith(TRIGGER.replace(" ", ""))
    kept = fitted.removesuffix(f", {TRIGGER}")
    assert f"{kept} {lost}, {TRIGGER}" == LONG
    assert kept
    assert lost


def test_the_network_is_given_another_prompt_for_another_trigger(model):
    """What was wrong: of a long caption the model saw the same with every trigger."""
    texts = [f"{WORDS * 20}, {trigger}" for trigger in ("zxq style", "vqj style")]
    cut = model.encode_prompts(texts, 16)
    assert all(torch.equal(*values) for values in cut.values())
    fitted = [fit_prompt(text, text.rpartition(", ")[2], model.readers)[0] for text in texts]
    whole = model.encode_prompts(fitted, 16)
    assert any(not torch.equal(*values) for values in whole.values())


def test_as_many_words_are_kept_as_fit(small):
    fitted, lost = fit_prompt(LONG, TRIGGER, small)
    longer = fitted.replace(f", {TRIGGER}", f" {lost.split()[0]}, {TRIGGER}")
    assert small[0].tokens(fitted) <= 32 < small[0].tokens(longer)


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("猫" * 60, "猫"),  # no spaces
        ("x" * 500 + " a house", "x"),
        ("a house. " * 20, "a house. a house"),
        (f"{TRIGGER} " * 20, TRIGGER),
        ("\u200b".join("abc") * 40, "a"),
    ],
)
def test_any_text_can_be_shortened(small, text, begins):
    fitted, lost = fit_prompt(f"{text}, {TRIGGER}", TRIGGER, small)
    assert fitted.startswith(begins)
    assert fitted.endswith(f", {TRIGGER}")
    assert ".," not in fitted
    assert lost
    assert small[0].tokens(fitted) <= 32


def test_a_trigger_that_leaves_no_room_stands_alone(small):
    trigger = "q" * 30
    assert fit_prompt(f"a house, {trigger}", trigger, small) == (trigger, "a house")


def test_a_trigger_that_does_not_fit_is_named(small):
    with pytest.raises(InputError, match=r"^styles.fog.trigger = 'q+': must be at most 32 tokens of the model's token"):
        check_trigger("fog", "q" * 31, small)
    assert check_trigger("fog", TRIGGER, small) == []


def test_a_trigger_that_a_tokenizer_does_not_know_is_said(folders):
    """The T5 of this size knows small letters alone."""
    readers = prompt_readers(model_config(*folders["sd3"]))
    (note,) = check_trigger("fog", "123 45", readers)
    assert note.startswith("styles.fog.trigger = '123 45': the model's tokenizer_3 knows none of it")
    assert check_trigger("fog", "123 fog", readers) == []


def test_without_a_trigger_the_end_is_what_is_lost(small):
    fitted, lost = fit_prompt(WORDS * 2, "", small)
    assert f"{fitted} {lost}" == WORDS * 2
    assert note_of_lost("'a'", lost, "", small).startswith(
        "'a': its end is not seen, for the model reads 32 tokens; lost:"
    )


def test_all_prompts_and_what_each_lost(small):
    short = f"a house, {TRIGGER}"
    fitted, lost = fit_prompts([short, LONG, LONG], TRIGGER, small)
    assert fitted[0] == short
    assert fitted[1] == fitted[2] == fit_prompt(LONG, TRIGGER, small)[0]
    assert lost == {LONG: fit_prompt(LONG, TRIGGER, small)[1]}


def test_tokenizers_are_read_without_weights(folders, kind, tmp_path):
    folder, family = folders[kind]
    place = shutil.copytree(folder, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    found = prompt_readers(model_config(place, family))
    limits = {one.name: one.limit for one in found}
    expected = {"sd": {"tokenizer": 32}, "sd3": {"tokenizer": 32, "tokenizer_2": 32, "tokenizer_3": 256}}
    expected |= {"xl": {"tokenizer": 32, "tokenizer_2": 32}, "sd3.5": expected["sd3"]}
    assert limits == expected.get(kind, expected["xl"])


def test_a_model_of_the_hub_that_is_not_here_has_no_tokenizers_to_ask(tmp_path):
    config = model_config(tmp_path).model_copy(update={"name": "owner/none", "revision": "0" * 40})
    assert prompt_readers(config) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_max_length": None}, "tokenizer: its tokenizer_config.json has no model_max_length"),
        ({"model_max_length": 77}, "tokenizer: its model_max_length is 77, its text encoder has 32 positions"),
    ],
)
def test_a_tokenizer_that_does_not_belong_to_its_encoder(tiny_folder, tmp_path, change, said):
    place = shutil.copytree(tiny_folder, tmp_path / "model")
    file = place / "tokenizer/tokenizer_config.json"
    values = json.loads(file.read_text()) | change
    file.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
    with pytest.raises(InputError, match=rf"^model.name = '.*' cannot be loaded: {said}$"):
        prompt_readers(model_config(place))
