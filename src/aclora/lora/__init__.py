"""LoRA tensors: their spectra, RESTART, and their files. No model is needed."""
