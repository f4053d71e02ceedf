"""Cells to embeddings: encoding in batches, in memory and streamed from a file."""
