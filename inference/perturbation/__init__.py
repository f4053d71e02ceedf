"""Genes deleted, inserted, raised or lowered in silico, and cell fate on top of it."""
