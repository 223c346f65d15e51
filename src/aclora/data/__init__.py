"""Pictures, their captions, and corruption on purpose."""
