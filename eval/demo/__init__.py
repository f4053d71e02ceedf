"""The demo: the whole path on real cells, and its report."""
