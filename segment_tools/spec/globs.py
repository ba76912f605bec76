"""Patterns of names, in which `*` stands for any text, so that no name takes them long."""

from collections.abc import Iterator, Sequence


def any_between(parts: Sequence[str]) -> str:
    """The regular expression, to be matched in full, of these expressions with any text between each two.

    Each is found where it first can be and never looked for again, which is enough: only the last has its place.
    """
    first, *others = parts
    return "".join([first, *_found(others)])


def _found(parts: Sequence[str]) -> Iterator[str]:
    for part in parts[:-1]:
        yield f"(?>.*?{part})"
    for last in parts[-1:]:
        yield f".*{last}"
