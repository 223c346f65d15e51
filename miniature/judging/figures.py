"""Objects, their colours, and the style, as the judge recognises them. It knows the drawn world alone."""

from aclora.metrics.contract import Context, Figure, PictureSet
from miniature.judging.accuracy import class_accuracy, colour_accuracy, object_accuracy


def objects(pictures: PictureSet, context: Context) -> float | None:
    """The share of prompted objects that are recognised; None where no prompt names one."""
    names = context.labels["judge"]
    logits = pictures.outputs["judge"]["object"]
    return object_accuracy(logits, pictures.prompts, names["colours"], names["objects"])


def colours(pictures: PictureSet, context: Context) -> float | None:
    """The share of prompted objects whose colour is recognised as the prompted one."""
    names = context.labels["judge"]
    logits = pictures.outputs["judge"]["colour"]
    return colour_accuracy(logits, pictures.prompts, names["colours"], names["objects"])


def style(pictures: PictureSet, context: Context) -> float | None:
    """The share of pictures that are recognised as the style; None for a style that the judge does not know."""
    known = context.labels["judge"]["styles"]
    if context.style not in known:
        return None
    wanted = [known.index(context.style)] * len(pictures.names)
    return class_accuracy(pictures.outputs["judge"]["style"], wanted)


FIGURES = (
    Figure("object_accuracy", "objects recognised", 1, "judge", objects, place=80, against="prompts"),
    Figure("colour_accuracy", "colours recognised", 1, "judge", colours, place=81, against="prompts"),
    Figure("style_accuracy", "style recognised", 1, "judge", style, place=82, against="generated"),
    Figure(
        "drift_style_accuracy",
        "style recognised without trigger",
        -1,
        "judge",
        style,
        place=110,
        of="without_trigger",
        against="without_trigger",
        with_base=False,
    ),
)
