"""What the receiver of webhooks in this process tells the tools: whether there is one, and what it refused."""

from dataclasses import dataclass


@dataclass(slots=True)
class Reception:
    """Kept by the receiver, read by the tools. Other processes on the same inbox have their own."""

    listening: bool = False
    refused: int = 0
    """How many requests had a signature that is missing or wrong, since this process began."""

    @property
    def refusals(self) -> str:
        """What a user should know of them; empty where there were none."""
        if not self.refused:
            return ""
        many = "1 webhook was" if self.refused == 1 else f"{self.refused:,} webhooks were"
        return (
            f"{many} refused since this server began, for a wrong signature: make SEGMENT_WEBHOOK_SECRET the shared "
            "secret of the webhook destination in Segment."
        )
