"""What is particular of each of Segment's APIs when it fails: how an error names it, and how to mend it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from segment_tools.errors import NotFound, RateLimited, Rejected, Unauthorized

Rejections = Mapping[int, tuple[type[Rejected], str]]


@dataclass(frozen=True, slots=True)
class Service:
    """One API, as its errors speak of it."""

    name: str
    setting: str
    """The setting of its address."""
    again: str
    """What to do after no answer, or one that may be better at another time."""
    unknown: str
    """What to do after an answer that did not come, when nobody knows what became of the request."""
    rejections: Rejections
    """By status, the error and what to do about it."""
    otherwise: Mapping[int, str]
    """The same for statuses without an entry of their own, by their hundreds."""
    quoted: bool
    """Whether an error repeats what the API says: not where that may be somebody's data."""


_SAFE = "which makes a repeat safe."
_KEY = "Check the write key (SEGMENT_WRITE_KEY) and the region (SEGMENT_REGION)"
_OAUTH = "SEGMENT_OAUTH_CLIENT_ID, SEGMENT_OAUTH_KEY_ID and SEGMENT_OAUTH_PRIVATE_KEY"

TRACKING = Service(
    name="Segment",
    setting="SEGMENT_DATA_PLANE_URL",
    again=f"Try again later with the same messageId, {_SAFE}",
    unknown=f"The message may have arrived; try again with the same messageId, {_SAFE}",
    rejections={
        401: (Unauthorized, f"{_KEY}; a source that enforces OAuth needs {_OAUTH}."),
        403: (Unauthorized, "Check the write key (SEGMENT_WRITE_KEY) and that the source allows it."),
        404: (NotFound, "Check SEGMENT_DATA_PLANE_URL: no Segment data plane answers there."),
        413: (Rejected, "Send fewer or smaller messages."),
        429: (RateLimited, f"Wait, then try again with the same messageId, {_SAFE}"),
    },
    otherwise={
        3: "Redirects are not followed: set SEGMENT_DATA_PLANE_URL to the final address.",
        4: "Mend the message as Segment says; the same call will be refused again.",
        5: "Check SEGMENT_DATA_PLANE_URL: what answers there does not take messages.",
    },
    quoted=True,
)

TRACKING_BY_TOKEN = replace(TRACKING, rejections={**TRACKING.rejections, 401: (Unauthorized, f"{_KEY}, and {_OAUTH}.")})
"""The same, asked with a token of OAuth."""

PROFILES = Service(
    name="The Profile API",
    setting="SEGMENT_PROFILE_URL",
    again="Try again later: reading changes nothing.",
    unknown="Try again: reading changes nothing.",
    rejections={
        401: (Unauthorized, "Check that SEGMENT_PROFILE_TOKEN is an access token of this space, and SEGMENT_REGION."),
        403: (Unauthorized, "Check that SEGMENT_PROFILE_TOKEN may read this space (SEGMENT_SPACE_ID or spaceId)."),
        404: (NotFound, "Check SEGMENT_SPACE_ID and SEGMENT_REGION, or SEGMENT_PROFILE_URL: there is no such route."),
        429: (RateLimited, "Wait, then try again: a space answers about 100 look-ups a second."),
    },
    otherwise={
        3: "Redirects are not followed: set SEGMENT_PROFILE_URL to the final address.",
        4: "Check the arguments; the same call will be refused again.",
        5: "Check SEGMENT_PROFILE_URL: what answers there has no profiles.",
    },
    quoted=False,
)
"""Source of the statuses: https://segment.com/docs/unify/profile-api/#errors."""

SOURCE_SETTINGS = Service(
    name="Segment's settings of sources",
    setting="SEGMENT_CDN_URL",
    again="Try again later: reading changes nothing.",
    unknown="Try again: reading changes nothing.",
    rejections={404: (NotFound, "No source has this write key: copy it from the source's settings.")},
    otherwise={
        3: "Redirects are not followed: set SEGMENT_CDN_URL to the final address.",
        4: "Check SEGMENT_CDN_URL.",
        5: "Check SEGMENT_CDN_URL.",
    },
    quoted=False,
)
"""What a source's public settings say, which Segment's browser library reads first."""

_APP = "SEGMENT_OAUTH_CLIENT_ID, SEGMENT_OAUTH_KEY_ID, SEGMENT_OAUTH_PRIVATE_KEY and SEGMENT_OAUTH_SCOPE"

AUTHORIZATION = Service(
    name="Segment's OAuth server",
    setting="SEGMENT_OAUTH_URL",
    again="Try again later: no message was sent.",
    unknown="Try again: no message was sent.",
    rejections={
        **dict.fromkeys((400, 401, 403, 415), (Unauthorized, f"Check {_APP}, and SEGMENT_REGION.")),
        404: (NotFound, "Check SEGMENT_OAUTH_URL: nothing gives tokens there."),
        429: (RateLimited, "Wait, then try again: no message was sent."),
    },
    otherwise={
        3: "Redirects are not followed: set SEGMENT_OAUTH_URL to the final address.",
        4: "Check SEGMENT_OAUTH_URL.",
        5: "Check SEGMENT_OAUTH_URL.",
    },
    quoted=False,
)
"""Where tokens for OAuth come from. Not quoted: an answer may repeat the assertion."""

PUBLIC_API = Service(
    name="The Public API",
    setting="SEGMENT_PUBLIC_API_URL",
    again="Try again later: reading changes nothing.",
    unknown="Check the network and SEGMENT_PUBLIC_API_URL, then try again.",
    rejections={
        **dict.fromkeys(
            (401, 403),
            (
                Unauthorized,
                "Check that SEGMENT_PUBLIC_API_TOKEN is a Public API token of the workspace, and SEGMENT_REGION.",
            ),
        ),
        404: (NotFound, "Check the tracking plan's id in SEGMENT_TRACKING_PLAN, and SEGMENT_REGION."),
        429: (RateLimited, "Wait, then try again: the rules of tracking plans may be read 200 times a minute."),
    },
    otherwise={
        3: "Redirects are not followed: set SEGMENT_PUBLIC_API_URL to the final address.",
        4: "Check the tracking plan's id in SEGMENT_TRACKING_PLAN, and SEGMENT_PUBLIC_API_URL.",
        5: "Check SEGMENT_PUBLIC_API_URL: it is not the Public API that answers there.",
    },
    quoted=False,
)
"""Source of the statuses: https://docs.segmentapis.com/tag/Error-Handling; of the rate, /tag/Tracking-Plans."""
