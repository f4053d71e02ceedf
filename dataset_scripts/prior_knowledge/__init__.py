"""Builders of the prior-knowledge tables."""
