"""A Segment that runs here: as lenient as Segment, and honest about what Segment would drop.

It shares no message model with the client, so that it cannot agree with the client's mistakes.
"""
