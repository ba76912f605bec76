"""The sandbox's sources: which write keys it knows, and what it calls each without giving the key away."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sources:
    """Names of sources by write key; where there is none, every key is known."""

    names: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    def knows(self, write_key: str) -> bool:
        """Whether a source has this key. Segment answers 200 either way, and drops what an unknown one sends."""
        return not self.names or write_key in self.names

    def name_of(self, write_key: str) -> str:
        """The source's name; for a key without one, a name that tells two keys apart."""
        digest = hashlib.sha256(write_key.encode(errors="replace")).hexdigest()
        return self.names.get(write_key, f"source-{digest[:8]}")
