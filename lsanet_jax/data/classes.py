"""Names of classes: one spelling each."""

import collections
import re
import unicodedata
from collections.abc import Sequence

from lsanet_jax.errors import DataError


def check_names(where: object, names: Sequence[str]) -> None:
    """Raises DataError if a name is empty, or two are spellings of one."""
    spellings = collections.defaultdict(list)
    for name in names:
        spellings[spelling(name)].append(name)
    for same in spellings.values():
        if len(same) > 1:
            shown = map(ascii if len({*map(_composed, same)}) < len(same) else repr, same)
            raise DataError(
                f"{where}: found classes {' and '.join(shown)}, expected one spelling: rename one"
                " of them."
            )
    if "" in spellings:
        raise DataError(f"{where}: found a class without a name: name it.")


def spelling(name: str) -> str | float:
    """Return a class's name without case, underscores and hyphens; of a number, its value."""
    if is_number(name):
        return float(name)
    text = unicodedata.normalize("NFKC", name).casefold()
    text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")  # No width.
    return " ".join(text.replace("_", " ").replace("-", " ").split())


def is_number(name: str) -> bool:
    """Whether a name is a decimal number."""
    return bool(re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,15})?", name))


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
