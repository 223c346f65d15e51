"""The training loop, what is added to its loss, and its checkpoints."""
