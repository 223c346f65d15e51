"""What a network's folder says that it was trained on."""

import pytest

from aclora.core.hub import trained_on


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("---\ntrained_on: drawings of a small world\nlicense: mit\n---\n# A network\n", "drawings of a small world"),
        ("---\ntrained_on: >\n  drawings\n  of fish\n---\n", "drawings of fish"),
        ("---\ndatasets: [laion/laion2B-en]\n---\n# A network\n", None),
        ("---\ntrained_on: [a, b]\n---\n", None),
        ("---\ntrained_on: ' '\n---\n", None),
        ("---\ntrained_on: [a\n---\n", None),
        ("# A network\n", None),
        ("", None),
    ],
)
def test_the_head_of_the_card_counts(tmp_path, text, said):
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    assert trained_on(tmp_path) == said


def test_a_network_without_a_card_says_nothing(tmp_path):
    assert trained_on(tmp_path) is None
    assert trained_on("owner/network@0123456") is None
