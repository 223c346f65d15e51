"""The classifier of drawings and the figures that it gives."""
