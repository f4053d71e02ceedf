"""Published checkpoints to this format."""
