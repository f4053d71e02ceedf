"""Simple baselines that stand beside every score."""
