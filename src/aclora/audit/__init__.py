"""Failure signatures of a training, and their plots."""
