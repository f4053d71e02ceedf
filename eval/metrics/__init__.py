"""Metrics: plain functions, with thin evaluate modules on top."""
