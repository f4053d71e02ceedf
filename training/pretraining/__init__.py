"""Pre-training: masking, the token-budget stream, the trainer, from one YAML file."""
