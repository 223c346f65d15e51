"""What prompts name, and the shares that are read right."""

import pytest
import torch

from miniature.judging.accuracy import class_accuracy, colour_accuracy, object_accuracy, pairs_in

COLOURS, OBJECTS = ["red", "blue"], ["house", "tree", "cat"]


def test_pairs_are_found_with_or_without_other_words():
    prompt = "a big red house to the left of a blue cat at sea, zxq style"
    assert pairs_in(prompt, COLOURS, OBJECTS) == [(0, 0), (1, 2)]
    assert pairs_in("a red treehouse, infrared cat", COLOURS, OBJECTS) == []


def test_objects_count_among_as_many_as_were_asked_for():
    logits = torch.tensor([[2.0, 1.0, 0.0], [2.0, 0.0, 1.0]])
    prompts = ["a red house and a blue cat", "a red house and a blue cat"]
    assert object_accuracy(logits, prompts, COLOURS, OBJECTS) == 0.75
    assert object_accuracy(logits, ["a mill", "a mill"], COLOURS, OBJECTS) is None


def test_colours_are_read_at_their_own_object():
    logits = torch.zeros(1, 3, 2)
    logits[0, 0, 0] = logits[0, 2, 0] = 1  # house red, cat red
    assert colour_accuracy(logits, ["a red house and a blue cat"], COLOURS, OBJECTS) == 0.5


def test_class_accuracy():
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    assert class_accuracy(logits, [1, 1, 1]) == pytest.approx(2 / 3)
