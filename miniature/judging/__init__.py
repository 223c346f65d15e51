"""The classifier of drawings, and the figures that it gives: what an evaluation of drawings knows beyond the library's.

params.yaml names this package in `evaluate.figures`.
"""

from miniature.judging.encoder import Judge
from miniature.judging.figures import FIGURES as FIGURES

ENCODERS = (Judge,)
