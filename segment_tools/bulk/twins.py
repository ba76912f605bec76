"""Files of one name in one import: told apart by their folders, so that no row is taken for another's repeat."""

import os
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from segment_tools.bulk.naming import plain_name


def twins(names: Sequence[str]) -> Iterator[list[str]]:
    """Those of the files that have a name in common, but for what says that they are compressed."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(plain_name(name), []).append(name)
    return (each for each in found.values() if len(each) > 1)


def folders(alike: Sequence[str]) -> dict[str, str]:
    """Of each of the files, as few of its last folders as tell it from the others; none where all are in one folder."""
    parents = {name: PurePath(os.path.abspath(name)).parent.parts for name in alike}  # noqa: PTH100 - as it is called
    return {name: _told_apart(own, set(parents.values()) - {own}) for name, own in parents.items()}


def _told_apart(own: tuple[str, ...], others: set[tuple[str, ...]]) -> str:
    if not others:
        return ""
    count = next(count for count in range(1, len(own) + 1) if all(own[-count:] != each[-count:] for each in others))
    return "/".join(own[-count:])
