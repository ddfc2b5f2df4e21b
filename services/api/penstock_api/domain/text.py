"""Text from models and hosts, made fit for the database."""

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
CUT_MARK = "… (cut)"


def storable(text: str, characters_max: int) -> str:
    """`text` without what PostgreSQL refuses (NUL), and no longer than `characters_max`."""
    clean = text.replace("\0", _REPLACEMENT)
    if len(clean) <= characters_max:
        return clean
    return clean[: characters_max - len(CUT_MARK)] + CUT_MARK


def tail(text: str, characters_max: int) -> str:
    """The end of `text`, where a log says what went wrong; without NUL."""
    return text[-characters_max:].replace("\0", _REPLACEMENT)
