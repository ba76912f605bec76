"""What Segment says: messages, limits and names. Pure: no clock, no network, no disk."""
