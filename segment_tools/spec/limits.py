"""Segment's limits, each with its source, and the few that are ours, each with its reason."""

MESSAGE_BYTES = 32 * 1024
"""One message on the wire. Source: https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/
("Max request size": 32 KB; Segment's own libraries count 32 x 1024)."""

BATCH_BYTES = 500 * 1000
"""One `/v1/batch` request. Source: the same page ("500 KB"), read strictly: it does not say 1000 or 1024."""

BATCH_MESSAGES = 2500
"""Messages in one `/v1/batch` request. Source: the same page; above it the whole batch is lost with a 200."""

MESSAGE_ID_CHARACTERS = 100
"""Source: https://segment.com/docs/connections/spec/common/ and Unify's product limits."""

SHORT_MESSAGE_ID = 8
"""Ours. De-duplication goes by `messageId` alone, across all of Segment's customers, so that short ids collide.
Source of the scope: https://segment.com/docs/guides/duplicate-data/."""

GROUP_ID_CHARACTERS = 500
"""Above it Unify drops the message. Source: https://segment.com/docs/unify/profile-api-limits/."""

UNIFY_FIELDS = 300
"""Traits or properties of one message that Unify takes; above it, it drops the message. Source: the same page."""

RECOMMENDED_DEPTH = 3
"""Levels of nesting that destinations take; deeper is kept by Segment. Source: recommendation for traits."""

ENCODABLE_DEPTH = 100
"""Ours. Deeper than any real message, and far below what JSON parsers refuse (200 levels in this server's own)."""

FUTURE_SECONDS = 24 * 60 * 60
"""Ours. A timestamp further ahead than this is a mistake: no time zone mix-up explains it."""

ENCODABLE_INTEGER = 10**300
"""Ours. Larger integers are beyond what a JSON number can be read back as (IEEE 754 doubles end at 1.8e308)."""
