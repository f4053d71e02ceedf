"""Readers of count matrices, in row blocks."""
