"""The settings, read once from the environment."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from segment_tools.addresses import base_url, is_loopback, wrong
from segment_tools.environment import PREFIX, variables
from segment_tools.errors import NotConfigured
from segment_tools.remarks import REMARKS
from segment_tools.setting_types import (
    SEGMENT_PLAN,
    Consents,
    EventPatterns,
    FilePath,
    InboxAddress,
    OAuthId,
    OAuthScope,
    OAuthUrl,
    OutboxAddress,
    Patterns,
    PrivateKey,
    Redactions,
    RedactKey,
    RedisAddress,
    Secret,
    Sources,
    SpaceId,
    TrackingPlanName,
    Url,
    Words,
    WriteKey,
)

SANDBOX = "sandbox"
TOOLSETS = ("tracking", "profiles", "triggers", "outbox", "connection", "plan", "bulk")
NEEDS = {
    "profiles": "profile_token",
    "triggers": "webhook_secret",
    "outbox": "outbox",
    "bulk": "import_dir",
}
"""What a toolset is offered with."""

HOSTS = {"us": "https://api.segment.io", "eu": "https://events.eu1.segmentapis.com"}
"""Source: https://segment.com/docs/guides/regional-segment/."""

PROFILE_HOSTS = {"us": "https://profiles.segment.com", "eu": "https://profiles.euw1.segment.com"}
"""Source: https://segment.com/docs/unify/profile-api/."""

OAUTH_HOSTS = {"us": "https://oauth2.segment.io", "eu": "https://oauth2.eu1.segmentapis.com"}
"""Source: https://segment.com/docs/connections/oauth/."""

PUBLIC_API_HOSTS = {"us": "https://api.segmentapis.com", "eu": "https://eu1.api.segmentapis.com"}
"""Source: https://docs.segmentapis.com/tag/Getting-Started."""

_OAUTH = ("oauth_client_id", "oauth_key_id", "oauth_private_key")
"""What makes OAuth, all of it or nothing."""

CDN = "https://cdn.segment.com"
"""Where a source's public settings are, of either region. Source: Segment's browser library."""


def _variable(field: str) -> str:
    return f"{PREFIX}{field.upper()}"


class Settings(BaseModel):
    """What the server needs to know. Every field is the environment variable `SEGMENT_<FIELD>` in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    write_key: WriteKey | None = Field(
        default=None,
        description="Write key of the Segment source that messages go to. Secret.",
    )
    sources: Sources = Field(
        default_factory=dict[str, SecretStr],
        description="Several sources, as a JSON object of name to write key; "
        "two or more give every tool a `source` argument. Secret.",
    )
    region: Literal["us", "eu"] = Field(
        default="us",
        description="Region of the workspace: `us` or `eu`. A key of the other region is accepted by Segment and lost.",
    )
    data_plane_url: str | None = Field(
        default=None,
        description="Where to send instead of the region's host: a host, a host with port, or a URL "
        "with or without `/v1`; https, or http on this machine alone. `sandbox` starts an embedded sandbox.",
    )
    anonymous_id: Literal["require", "generate"] = Field(
        default="require",
        description="What to do when a message has neither userId nor anonymousId: `require` refuses it, "
        "`generate` makes a random anonymousId and says so.",
    )
    allow_write_key_arg: bool = Field(
        default=False,
        description="`true` lets a call pass its own `writeKey`, which then wins, although a key is configured.",
    )
    dry_run: bool = Field(
        default=False,
        description="`true` sends nothing: results carry the exact request body instead.",
    )
    read_only: bool = Field(default=False, description="`true` hides and refuses every tool that writes.")
    toolsets: Words = Field(
        default=TOOLSETS,
        description=f"Which groups of tools to offer, separated by commas: {', '.join(TOOLSETS)}. "
        "Profiles, triggers, outbox and bulk also need what they are configured with.",
    )
    warnings_off: Words = Field(
        default=(),
        description="Warnings not to give, by their codes, separated by commas.",
    )
    redact_key: RedactKey | None = Field(
        default=None,
        description="Key that `SEGMENT_REDACT` hashes with (HMAC-SHA256), 16 characters or more. Keep it: under "
        "another, the same value has another hash. Secret.",
    )
    redact: Redactions = Field(
        default_factory=dict[str, Literal["drop", "mask", "hash"]],
        description="What is done with somebody's data before it leaves, is kept or shown: a JSON object, or a file of "
        "one, of field to `drop`, `mask` or `hash`: [Privacy](#privacy).",
    )
    block_secrets: bool = Field(
        default=True,
        description="`true` refuses a message that holds what is plainly a credential or a payment card's number: "
        "[Privacy](#privacy).",
    )
    require_consent: bool = Field(
        default=False,
        description="`true` refuses a message without `context.consent.categoryPreferences`.",
    )
    timeout_seconds: float = Field(
        default=30.0,
        gt=0,
        le=600,
        allow_inf_nan=False,
        description="How long a call may take in all, retries included, in seconds.",
    )
    requests_per_second: int = Field(
        default=1000,
        ge=1,
        le=100_000,
        description="How many requests may leave in a second; 1,000 is what Segment asks of a workspace.",
    )
    concurrency: int = Field(default=64, ge=1, le=1000, description="How many requests may be under way at once.")
    batch_calls: bool = Field(
        default=True,
        description="`true` lets calls that come while others to the same source are under way leave together, in one "
        "`/v1/batch`; alone, a call leaves at once. `false`: each is a request of its own.",
    )
    rate_limit: RedisAddress | None = Field(
        default=None,
        description="Where replicas share that rate, and the pauses that Segment asks for: `redis://host:6379/0` "
        "(default: each process keeps to them alone). Secret.",
    )
    profile_token: Secret | None = Field(
        default=None,
        description="Access token of the Profile API; with it the profile tools are offered. Secret.",
    )
    space_id: SpaceId | None = Field(
        default=None,
        description="The space whose profiles are read; a call may name another with `spaceId`.",
    )
    profile_url: Url | None = Field(
        default=None,
        description="Where to read profiles instead of the region's host; with a data plane on this machine, "
        "a sandbox, that is the default.",
    )
    profile_hide_traits: Patterns = Field(
        default=(),
        description="Traits to mask before a tool or resource shows them: names or patterns such as `*email*`, "
        "separated by commas, in any case and at any depth; external ids of such a type are masked too. Webhook "
        "deliveries are masked the same way, but sent on whole.",
    )
    webhook_secret: Secret | None = Field(
        default=None,
        description="Shared secret that Segment signs its webhooks with; with it they are received and the trigger "
        "tools are offered. Secret.",
    )
    webhook_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port to receive webhooks on beside stdio (0: any free one); `segment-tools http` receives them "
        "on its own.",
    )
    webhook_host: Annotated[str, Field(pattern="^[A-Za-z0-9.:_-]+$")] = Field(
        default="127.0.0.1",
        description="Address that `SEGMENT_WEBHOOK_PORT` is opened on.",
    )
    inbox: InboxAddress | None = Field(
        default=None,
        description="Where deliveries are kept: `sqlite:///relative.db`, `sqlite:////absolute/path.db` (a desktop host "
        "starts servers in a folder of its own), or `redis://host:6379/0` for several replicas (default: a file in "
        "your user data folder).",
    )
    inbox_days: float = Field(
        default=14.0,
        gt=0,
        le=3650,
        allow_inf_nan=False,
        description="For how many days deliveries are kept.",
    )
    inbox_count: int = Field(
        default=100_000,
        ge=1,
        le=100_000_000,
        description="How many deliveries are kept; the oldest go first.",
    )
    outbox: OutboxAddress | None = Field(
        default=None,
        description="Where messages are kept until Segment has taken them: `sqlite:///relative.db`, "
        "`sqlite:////absolute/path.db` (a desktop host starts servers in a folder of its own), `redis://host:6379/0` "
        "for several replicas, or `memory:` (default: nowhere; what cannot be delivered in time is then an error).",
    )
    delivery: Literal["direct", "queued"] = Field(
        default="direct",
        description="`direct` sends at once, and leaves to the outbox what could not be delivered in time; `queued` "
        "answers once a message is in the outbox, and delivers in the background.",
    )
    outbox_max_bytes: int = Field(
        default=256 * 1024 * 1024,
        ge=64 * 1024,
        description="How much the outbox holds, at least 65,536; beyond it calls are refused until it has emptied.",
    )
    flush_seconds: float = Field(
        default=5.0,
        ge=0,
        le=600,
        allow_inf_nan=False,
        description="For how long, when the server ends, the outbox is still delivered; the rest stays in it.",
    )
    derive_message_id: bool = Field(
        default=False,
        description="`true` derives messageId from the content and the MCP request, so that a host's own retry of a "
        "call is the same message.",
    )
    metrics: bool = Field(
        default=False,
        description="`true` answers `GET /metrics` of `segment-tools http` for Prometheus; needs "
        "`pip install 'segment-tools[metrics]'`.",
    )
    cdn_url: Url | None = Field(
        default=None,
        description="Where the connection test looks a write key up; with a data plane on this machine, that is the "
        "default, otherwise Segment's own.",
    )

    oauth_client_id: OAuthId | None = Field(
        default=None,
        description="Id of the OAuth app, for sources that enforce OAuth; with its key's id and private key, every "
        "request carries a token.",
    )
    oauth_key_id: OAuthId | None = Field(
        default=None,
        description="Id that Segment shows for the app's public key.",
    )
    oauth_private_key: PrivateKey | None = Field(
        default=None,
        description="The app's private key, RSA in PEM: the text, with `\\n` for the ends of lines if need be, or the "
        "path of a file. Secret.",
    )
    oauth_scope: OAuthScope = Field(
        default="tracking_api:write",
        description="What the token is asked for.",
    )
    oauth_url: OAuthUrl | None = Field(
        default=None,
        description="Where to get tokens instead of the region's host; with a data plane on this machine, a sandbox, "
        "that is the default.",
    )

    tracking_plan: TrackingPlanName | None = Field(
        default=None,
        description="The tracking plan that messages are held to: a JSON file, or `segment:tp_...` for one that "
        "Segment has, read with `SEGMENT_PUBLIC_API_TOKEN`.",
    )
    tracking_plan_policy: Literal["off", "warn", "block"] = Field(
        default="warn",
        description="What becomes of a message that departs from the plan: `warn` sends it with warnings, `block` "
        "refuses it, `off` does not look.",
    )
    public_api_token: Secret | None = Field(
        default=None,
        description="Token of Segment's Public API, to read the tracking plan with. Secret.",
    )
    public_api_url: Url | None = Field(
        default=None,
        description="Where to read it instead of the region's host.",
    )

    agent_rate: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="How many messages a session may send in a minute; those of a batch count each (default: any).",
    )
    server_rate: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="How many messages all sessions of a server may send in a minute together (default: ten times "
        "`SEGMENT_AGENT_RATE`, if that is set).",
    )
    loop_limit: int = Field(
        default=5,
        ge=0,
        le=1000,
        description="How often a session may send the same message, or batch, in a row; 0: as often as it likes.",
    )
    allow_events: EventPatterns = Field(
        default=(),
        description="The only messages that may be sent: names of track events or patterns such as `Order *`, and "
        "`type:identify` for those of a type, separated by commas (default: all).",
    )
    deny_events: EventPatterns = Field(
        default=(),
        description="Messages that may not be sent, written the same way, in any case; goes before what is allowed.",
    )
    confirm: Consents = Field(
        default=(),
        description="What a person must agree to before it is sent: types and tools such as `alias`, `batch` and "
        "`outbox`, and patterns of events, separated by commas.",
    )
    audit_log: FilePath | None = Field(
        default=None,
        description="File that gets a line of JSON for each call, without anybody's data (default: none).",
    )
    audit_max_bytes: int = Field(
        default=16 * 1024 * 1024,
        ge=1024,
        description="At what size that file is put aside and begun anew; five are kept besides.",
    )
    audit_required: bool = Field(
        default=False,
        description="`true` refuses calls while that file cannot be written.",
    )
    import_dir: FilePath | None = Field(
        default=None,
        description="The one folder whose files `segment_import_file` may read; without it there is no such tool.",
    )

    @classmethod
    def from_env(cls, env_file: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Self:
        """Read the settings from the environment; `env_file` names a `.env` file that the environment overrides.

        Raises:
            NotConfigured: with one line that names the setting that is wrong.
        """
        values = variables(env_file, environ)
        given = {
            name: values[key].strip() for name in cls.model_fields if values.get(key := _variable(name), "").strip()
        }
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise _firstwrong(error) from None

    @field_validator("data_plane_url")
    @classmethod
    def _base_url(cls, value: str | None) -> str | None:
        return value if value in (None, SANDBOX) else base_url(value)

    @field_validator("toolsets")
    @classmethod
    def _known_toolsets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in value if name not in TOOLSETS]:
            raise wrong(f"does not know {unknown[0][:40]!r}; the toolsets are {', '.join(TOOLSETS)}")
        return value

    @field_validator("redact")
    @classmethod
    def _hashes_need_a_key(cls, value: Mapping[str, str], found: ValidationInfo) -> Mapping[str, str]:
        if "hash" in value.values() and found.data.get("redact_key") is None:
            raise wrong("hashes, which needs SEGMENT_REDACT_KEY: make one with openssl rand -hex 32")
        return value

    @field_validator("warnings_off")
    @classmethod
    def _known_warnings(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [code for code in value if code not in REMARKS]:
            near = difflib.get_close_matches(unknown[0].lower(), REMARKS, n=1, cutoff=0.5)
            mend = f"did you mean {near[0]}?" if near else "the codes are in the README"
            raise wrong(f"does not know {unknown[0][:40]!r}; {mend}")
        return value

    @field_validator("delivery")
    @classmethod
    def _queue_needs_outbox(cls, value: str, found: ValidationInfo) -> str:
        if value == "queued" and found.data.get("outbox") is None:
            raise wrong("is queued, which needs SEGMENT_OUTBOX: where messages are kept, such as sqlite:///outbox.db")
        return value

    @field_validator("audit_required")
    @classmethod
    def _required_needs_log(cls, value: bool, found: ValidationInfo) -> bool:
        if value and found.data.get("audit_log") is None:
            raise wrong("is true, which needs SEGMENT_AUDIT_LOG: the file to write")
        return value

    @field_validator("tracking_plan_policy")
    @classmethod
    def _blocking_needs_a_plan(cls, value: str, found: ValidationInfo) -> str:
        if value == "block" and found.data.get("tracking_plan") is None:
            raise wrong("is block, which needs SEGMENT_TRACKING_PLAN: a file, such as plan.json, or segment:tp_...")
        return value

    @model_validator(mode="after")
    def _oauth_is_whole(self) -> Self:
        missing = [_variable(name) for name in _OAUTH if getattr(self, name) is None]
        if 0 < len(missing) < len(_OAUTH):
            text = f"OAuth lacks {' and '.join(missing)}."
            raise NotConfigured(missing[0], text, hint="Set all three, or none.")
        return self

    @model_validator(mode="after")
    def _plan_can_be_read(self) -> Self:
        if self.segment_plan and self.public_api_token is None and self.checks_plan:
            hint = "Set it to a token of the workspace's Public API, or SEGMENT_TRACKING_PLAN to a file."
            text = "SEGMENT_TRACKING_PLAN names a plan that Segment has, which needs SEGMENT_PUBLIC_API_TOKEN."
            raise NotConfigured("SEGMENT_PUBLIC_API_TOKEN", text, hint=hint)
        return self

    @model_validator(mode="after")
    def _sandbox_needs_no_key(self) -> Self:
        if self.data_plane_url != SANDBOX:
            return self
        own: dict[str, Any] = {} if self.has_key else {"write_key": SecretStr(SANDBOX)}
        if self.profile_token is None:
            own |= {"profile_token": SecretStr(SANDBOX), "space_id": self.space_id or SANDBOX}
        return self.model_copy(update=own)

    @property
    def has_key(self) -> bool:
        """Whether a call can do without a key of its own."""
        return self.write_key is not None or bool(self.sources)

    def key_of(self, source: str) -> str | None:
        """The write key of a configured source; of none by name, that of `SEGMENT_WRITE_KEY`."""
        key = self.sources.get(source) if source else self.write_key
        return key.get_secret_value() if key else None

    @property
    def takes_write_key(self) -> bool:
        """Whether the tools have a `writeKey` argument."""
        return self.allow_write_key_arg or not self.has_key

    @property
    def source_names(self) -> tuple[str, ...]:
        """What the tools' `source` argument may be; empty where there is nothing to choose."""
        return tuple(self.sources) if len(self.sources) > 1 else ()

    def lacking(self, toolset: str) -> str | None:
        """The setting without which the toolset cannot be offered, where it is not set."""
        name = NEEDS.get(toolset)
        return _variable(name) if name and getattr(self, name) is None else None

    @property
    def endpoint(self) -> str:
        """The data plane's base URL, without `/v1`.

        Raises:
            NotConfigured: the embedded sandbox is asked for, and this program has not started it.
        """
        if self.data_plane_url == SANDBOX and not self.dry_run:
            hint = "Start `segment-tools sandbox` and set SEGMENT_DATA_PLANE_URL to the address it prints."
            raise NotConfigured(
                "SEGMENT_DATA_PLANE_URL", "Only the segment-tools command starts an embedded sandbox.", hint=hint
            )
        return self.data_plane_url or HOSTS[self.region]

    @property
    def profile_endpoint(self) -> str:
        """The Profile API's base URL, without `/v1`."""
        return self.profile_url or self._local_endpoint or PROFILE_HOSTS[self.region]

    @property
    def uses_oauth(self) -> bool:
        """Whether requests to the data plane carry a token."""
        return self.oauth_private_key is not None

    @property
    def oauth_endpoint(self) -> str:
        """The base URL, without `/token`, of what gives tokens; an assertion is made out to it."""
        return self.oauth_url or self._local_endpoint or OAUTH_HOSTS[self.region]

    @property
    def checks_plan(self) -> bool:
        """Whether messages are held to a tracking plan."""
        return self.tracking_plan is not None and self.tracking_plan_policy != "off"

    @property
    def segment_plan(self) -> str | None:
        """The id of the plan, where it is one that Segment has."""
        name = self.tracking_plan or ""
        return name.removeprefix(SEGMENT_PLAN) if name.startswith(SEGMENT_PLAN) else None

    @property
    def public_api_endpoint(self) -> str:
        """The base URL of what gives the plan's rules."""
        return self.public_api_url or PUBLIC_API_HOSTS[self.region]

    @property
    def cdn_endpoint(self) -> str:
        """The base URL, without `/v1`, of what tells a source's public settings."""
        return self.cdn_url or self._local_endpoint or CDN

    @property
    def may_be_sandbox(self) -> bool:
        """Whether the data plane is on this machine, so that it may be a sandbox that tells what it took."""
        return self._local_endpoint is not None

    @property
    def _local_endpoint(self) -> str | None:
        """The data plane where it is on this machine, a sandbox: it has Segment's other routes too."""
        url = self.data_plane_url
        return url if url and url != SANDBOX and is_loopback(urlsplit(url).hostname or "") else None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every configured key, to keep out of what leaves."""
        named = (
            self.write_key,
            self.profile_token,
            self.webhook_secret,
            self.rate_limit,
            self.oauth_private_key,
            self.redact_key,
            self.public_api_token,
        )
        keys = [*self.sources.values(), *(key for key in named if key)]
        return tuple(key.get_secret_value() for key in keys)


def misspelt(env_file: str | Path | None = None, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables that look like a setting spelt wrong, each with the setting it resembles."""
    names = [_variable(name) for name in Settings.model_fields]
    given = variables(env_file, environ)
    strangers = (key for key in given if key.startswith(PREFIX) and key not in names)
    near = ((key, difflib.get_close_matches(key, names, n=1, cutoff=0.85)) for key in strangers)
    return {key: match[0] for key, match in near if match}


def _firstwrong(error: ValidationError) -> NotConfigured:
    first = error.errors(include_url=False, include_input=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    reasons = {
        "literal_error": f"must be {first.get('ctx', {}).get('expected', '')}",
        "bool_parsing": "must be true or false",
        "float_parsing": "must be a number",
        "int_parsing": "must be a whole number",
        "string_pattern_mismatch": "is no address of this machine, such as 127.0.0.1",
    }
    text = first["msg"] if first["type"] == "setting" else reasons.get(first["type"], f"is wrong: {first['msg']}")
    setting = _variable(name)
    return NotConfigured(setting, f"{setting} {text}.")
