"""What ends the reading of a file before its end."""

from segment_tools.errors import NotConfigured


class Damaged(NotConfigured):
    """A file cannot be read past some place; the rows before it are right, and are sent all the same."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__("FILE", message, hint=hint)
