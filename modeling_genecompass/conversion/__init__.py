"""Published checkpoints to this format."""

from .convert import ConversionReport, convert_checkpoint

__all__ = ["ConversionReport", "convert_checkpoint"]
