"""Cells to labels: fine-tuned heads, label transfer from a reference, and what a label rests on."""
