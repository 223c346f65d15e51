"""The examples run, with few steps."""

from examples import language_model


def test_a_language_model_learns_with_and_without_restart(capsys):
    means = language_model.main(["--steps", "60", "--epochs", "12", "--seeds", "1"])
    printed = capsys.readouterr().out
    assert list(means) == ["base model", *language_model.WAYS]
    assert all(way in printed for way in means)
    assert printed.count("p, I = ") == 2  # both ways had their RESTART
    assert all(value > 0 for pair in means.values() for value in pair)
    assert all(means[way][0] < means["base model"][0] / 5 for way in language_model.WAYS)


def test_held_out_lines_are_others():
    lines = language_model.write(language_model.log, 40, 1)
    others = language_model.write(language_model.log, 200, 2, set(lines))
    assert len(set(lines)) == 40
    assert not set(lines) & set(others)
