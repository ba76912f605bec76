"""Which store something is, how its address is read, and what its errors say: never an address or what it holds."""

from dataclasses import dataclass
from importlib import import_module

from segment_tools.errors import NotConfigured, Unavailable

SERVERS = ("redis://", "rediss://", "unix://")
"""How the address of a Redis server begins."""

_FILE = "sqlite:///"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of store: its name, and the setting that says where it is."""

    name: str
    setting: str

    def unavailable(self, what: str, cure: str = "") -> Unavailable:
        """The error of a store that cannot be used just now; `cure` says what is known of the reason, and helps."""
        hint = cure or f"Check what {self.setting} names, and try again."
        code = f"{self.name}_unavailable"
        return Unavailable(f"The {self.name}'s {what} cannot be used just now.", hint=hint, code=code)

    def bad_cursor(self) -> ValueError:
        """What is raised for a cursor that was never given out."""
        return ValueError(f"The cursor is none of this {self.name}'s. Pass one as it was given, or leave it out.")

    def no_address(self, of: str, hint: str) -> NotConfigured:
        """The error of an address that is none."""
        return NotConfigured(self.setting, f"{self.setting} is no address of {of}.", hint=hint)

    def require_redis(self) -> None:
        """See that the package for a Redis server is installed.

        Raises:
            NotConfigured: it is not.
        """
        try:
            import_module("redis.asyncio")
        except ImportError:
            message = f"{self.setting} is the address of a Redis server, and the package for it is not installed."
            raise NotConfigured(self.setting, message, hint="pip install 'segment-tools[redis]'") from None


def sqlite_path(address: str) -> str | None:
    """The file that `sqlite:///a.db` names; None where the address names none."""
    path = address.removeprefix(_FILE)
    return path if address.startswith(_FILE) and path and path.isprintable() else None
