"""Trials: bad inputs and kills, each in a copy of a finished project; `make trials` writes docs/results/trials.md.

A `Case` is one bad input: what it spoils, the command that meets it, and what that must answer. The modules of
`tests.trials.cases` list cases by kind, `fuzz` draws more from a seed, `kills` kills runs at moments from a seed.
"""
