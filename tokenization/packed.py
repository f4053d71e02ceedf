"""Limits on what a small compressed file may unfold to."""

import gzip
from pathlib import Path

from .errors import InputError

# the header of a table of a million cells has thirty million characters
LONGEST_LINE = 1 << 28
_ALWAYS_FINE = 1 << 28
_LARGEST_RATIO = 100
_PIECE = 1 << 22


def refuse_bomb(path: Path) -> None:
    """Refuse a gzipped list of names that unfolds to more than a hundred times its size, and to much.

    Parameters
    ----------
    path
        A file that is going to be read whole; nothing happens where it is not gzipped.

    Raises
    ------
    InputError
        It is too large, truncated or damaged.

    Examples
    --------
    >>> refuse_bomb(Path("barcodes.tsv.gz"))  # doctest: +SKIP
    """
    if path.suffix != ".gz":
        return
    allowed = max(_ALWAYS_FINE, _LARGEST_RATIO * path.stat().st_size)
    size = 0
    try:
        with gzip.open(path, "rb") as handle:
            while piece := handle.read(_PIECE):
                size += len(piece)
                if size > allowed:
                    raise InputError(
                        f"{path}: {path.stat().st_size:,} bytes unfold to more than {allowed:,}; not a list of names"
                    )
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: truncated or damaged ({error})") from error
