"""Builders of gene tables and gene medians."""
