"""ImageReward (arXiv 2304.05977): how well does a picture answer its prompt? The network itself gives the figure."""

from aclora.metrics.contract import Figure

FIGURES = (
    Figure(
        name="image_reward",
        label="ImageReward",
        better=1,
        encoder="image_reward",
        asks=("score",),
        measure=lambda pictures, _: pictures.outputs["image_reward"]["scores"].double(),
        against="prompts",
        paired=True,
        in_average=True,
        place=70,
    ),
)
