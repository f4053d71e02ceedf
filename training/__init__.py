"""Masking, pre-training, fine-tuning, adapters."""
