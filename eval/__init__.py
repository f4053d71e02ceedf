"""Baselines, benchmark tasks, reports, and the demo."""
