"""What a sandbox is told when it starts."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from segment_tools.sandbox.faults import Fault
from segment_tools.sandbox.oauth import OAuth
from segment_tools.sandbox.sources import Sources
from segment_tools.sandbox.store import Retention
from segment_tools.sandbox.webhooks import Webhooks


@dataclass(frozen=True, slots=True)
class Spaces:
    """Access tokens of the Profile API by space id; where there is none, every space and token is known."""

    tokens: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    requests_a_second: int | None = None
    token: str | None = field(default=None, repr=False)
    """The one token of every space, where `tokens` names none; without it any is known."""

    def guarded(self, token: str | None) -> "Spaces":
        """The same for a sandbox that others can reach and that wants this token to be read."""
        return replace(self, token=self.token or token)

    def allows(self, space_id: str, token: str) -> bool:
        """Whether this is the space's token."""
        if not self.tokens:
            return self.token is None or hmac.compare_digest(self.token.encode(), token.encode())
        return hmac.compare_digest(self.tokens.get(space_id, "").encode(), token.encode()) and space_id in self.tokens


@dataclass(frozen=True, slots=True)
class Options:
    """A sandbox's options; the default is one that knows every write key, and every space and its token."""

    sources: Sources = field(default_factory=Sources)
    destinations: tuple[str, ...] = ()
    """Names of destinations that every source says it feeds, as `integrations` has them; nothing is sent there."""
    spaces: Spaces = field(default_factory=Spaces)
    retention: Retention = field(default_factory=Retention)
    token: str | None = field(default=None, repr=False)
    """What the debugger and `/_sandbox` want to be shown; needed where others than this machine can reach them."""
    faults: tuple[Fault, ...] = ()
    """What befalls the first requests."""
    oauth: OAuth = field(default_factory=OAuth)
    webhooks: Webhooks = field(default_factory=Webhooks)
