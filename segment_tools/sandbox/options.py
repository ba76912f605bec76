"""What a sandbox is told when it starts."""

from dataclasses import dataclass, field

from segment_tools.sandbox.faults import Fault
from segment_tools.sandbox.oauth import OAuth
from segment_tools.sandbox.sources import Sources
from segment_tools.sandbox.store import Retention
from segment_tools.sandbox.webhooks import Webhooks


@dataclass(frozen=True, slots=True)
class Options:
    """A sandbox's options; the default is one that knows every write key and keeps a million messages."""

    sources: Sources = field(default_factory=Sources)
    retention: Retention = field(default_factory=Retention)
    faults: tuple[Fault, ...] = ()
    """What befalls the first requests."""
    oauth: OAuth = field(default_factory=OAuth)
    webhooks: Webhooks = field(default_factory=Webhooks)
