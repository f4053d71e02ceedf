"""Explore a checkpoint and a data set in the browser."""
