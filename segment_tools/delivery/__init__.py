"""How what the outbox holds gets to Segment."""

from segment_tools.delivery.courier import Courier

__all__ = ["Courier"]
