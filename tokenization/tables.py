"""Tables of text that users bring; what is wrong with one is said in one line that names it."""

import os
import zlib
from typing import Any

import pandas as pd

from .errors import InputError


def read_table(path: str | os.PathLike[str], **options: Any) -> pd.DataFrame:
    """`pandas.read_csv` of a user's file.

    Parameters
    ----------
    path
        File, packed or not, UTF-8 with or without a byte-order mark.
    **options
        As for `pandas.read_csv`.

    Raises
    ------
    InputError
        No such file, another encoding, an empty, cut off or ragged table; the file is named.

    Examples
    --------
    >>> import tempfile
    >>> file = os.path.join(tempfile.mkdtemp(), "edges.tsv")
    >>> _ = open(file, "w").write("tf\\ttarget\\nFOS\\tJUN\\n")
    >>> read_table(file, sep="\\t").columns.tolist()
    ['tf', 'target']
    """
    try:
        return pd.read_csv(path, **options)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except pd.errors.EmptyDataError as error:
        raise InputError(f"{path}: holds no table, it is empty") from error
    except (pd.errors.ParserError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: no table can be read from it ({' '.join(str(error).split())[:150]})") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
