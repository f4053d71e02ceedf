"""The corpus: builder, checks, and the streaming reader."""
