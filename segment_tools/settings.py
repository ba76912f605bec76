"""The settings, read once from the environment; the only reader of `os.environ`."""

import difflib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from segment_tools.addresses import base_url, is_loopback, wrong
from segment_tools.errors import NotConfigured

SANDBOX = "sandbox"
TOOLSETS = ("tracking", "profiles", "triggers", "connection")
NEEDS = {"profiles": "profile_token", "triggers": "webhook_secret"}
"""What a toolset is offered with."""

HOSTS = {"us": "https://api.segment.io", "eu": "https://events.eu1.segmentapis.com"}
"""Source: https://segment.com/docs/guides/regional-segment/."""

PROFILE_HOSTS = {"us": "https://profiles.segment.com", "eu": "https://profiles.euw1.segment.com"}
"""Source: https://segment.com/docs/unify/profile-api/."""

CDN = "https://cdn.segment.com"
"""Where a source's public settings are, of either region. Source: Segment's browser library."""

_KEY = re.compile(r"[A-Za-z0-9_.~+/=-]+")
_PLACEHOLDERS = ("YOUR_WRITE_KEY", "WRITE_KEY", "YOUR_SEGMENT_WRITE_KEY")
_PREFIX = "SEGMENT_"


def is_write_key(value: object) -> bool:
    """Whether the value could be a write key at all: text without spaces, quotes or colons."""
    return isinstance(value, str) and _KEY.fullmatch(value) is not None and value not in _PLACEHOLDERS


def _write_key(value: object) -> SecretStr:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not is_write_key(text):
        raise wrong("is not a write key: copy it from Segment > Sources > your source > Settings > API Keys")
    return SecretStr(str(text))


def _json_object(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        parsed: object = json.loads(value)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict) or not all(map(_is_name, cast("dict[str, Any]", parsed))):
        raise wrong('must be a JSON object of name to write key, such as {"web": "KEY", "ios": "KEY"}')
    return cast("dict[str, Any]", parsed)


def _is_name(text: str) -> bool:
    return bool(text.strip()) and text.isprintable()


def _secret(value: object) -> SecretStr:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str) or not re.fullmatch("[!-~]+", text):
        raise wrong("must be plain text without spaces, as Segment shows it")
    return SecretStr(text)


def _inbox(value: object) -> SecretStr:
    """The address, which may hold a server's password."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    if not re.fullmatch(r"(sqlite:///|redis://|rediss://|unix://)[^\x00-\x1f]+", text):
        raise wrong("is no address of an inbox: pass sqlite:///inbox.db or redis://localhost:6379/0")
    return SecretStr(text)


def _space_id(value: object) -> object:
    if isinstance(value, str) and not is_space_id(value):
        raise wrong("is not a space's id, such as spa_abc123: copy it from Unify > Unify settings > API access")
    return value


def is_space_id(text: str) -> bool:
    """Whether this could be a space's id: letters, digits, `_` and `-`, so that it cannot lead to another path."""
    return re.fullmatch("[A-Za-z0-9_-]{1,100}", text) is not None


def _patterns(value: object) -> object:
    """Names with commas between them; a name may have spaces in it."""
    if not isinstance(value, str):
        return value
    if not value.isprintable():
        raise wrong("must be names or patterns, separated by commas")
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _words(value: object) -> object:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


WriteKey = Annotated[SecretStr, BeforeValidator(_write_key)]
Secret = Annotated[SecretStr, BeforeValidator(_secret)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]


class Settings(BaseModel):
    """What the server needs to know. Every field is the environment variable `SEGMENT_<FIELD>` in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    write_key: WriteKey | None = Field(
        default=None,
        description="Write key of the Segment source that messages go to. Secret.",
    )
    sources: Annotated[dict[str, WriteKey], BeforeValidator(_json_object)] = Field(
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
        "Profiles and triggers also need what they are configured with.",
    )
    timeout_seconds: float = Field(
        default=30.0,
        gt=0,
        le=600,
        allow_inf_nan=False,
        description="How long a call may take in all, retries included, in seconds.",
    )
    profile_token: Secret | None = Field(
        default=None,
        description="Access token of the Profile API; with it the profile tools are offered. Secret.",
    )
    space_id: Annotated[str | None, BeforeValidator(_space_id)] = Field(
        default=None,
        description="The space whose profiles are read; a call may name another with `spaceId`.",
    )
    profile_url: str | None = Field(
        default=None,
        description="Where to read profiles instead of the region's host; with a data plane on this machine, "
        "a sandbox, that is the default.",
    )
    profile_hide_traits: Annotated[tuple[str, ...], BeforeValidator(_patterns)] = Field(
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
    inbox: Annotated[SecretStr | None, BeforeValidator(_inbox)] = Field(
        default=None,
        description="Where deliveries are kept: `sqlite:///path`, or `redis://host:6379/0` for several replicas "
        "(default: a file in your user data folder).",
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
    cdn_url: str | None = Field(
        default=None,
        description="Where the connection test looks a write key up; with a data plane on this machine, that is the "
        "default, otherwise Segment's own.",
    )

    @classmethod
    def from_env(cls, env_file: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Self:
        """Read the settings from the environment; `env_file` names a `.env` file that the environment overrides.

        Raises:
            NotConfigured: with one line that names the setting that is wrong.
        """
        values = _file_values(env_file) | dict(os.environ if environ is None else environ)
        given = {
            name: values[key].strip()
            for name in cls.model_fields
            if values.get(key := f"{_PREFIX}{name.upper()}", "").strip()
        }
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise _firstwrong(error) from None

    @field_validator("profile_url", "cdn_url")
    @classmethod
    def _other_url(cls, value: str | None) -> str | None:
        return value if value is None else base_url(value)

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
        return f"{_PREFIX}{name.upper()}" if name and getattr(self, name) is None else None

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
        named = (self.write_key, self.profile_token, self.webhook_secret)
        keys = [*self.sources.values(), *(key for key in named if key)]
        return tuple(key.get_secret_value() for key in keys)


SANDBOX_SECRETS = ("SEGMENT_SANDBOX_TOKEN", "SEGMENT_SANDBOX_WEBHOOK_SECRET")
"""What a sandbox need not be told on its command line, where others could read it."""


def sandbox_secret(name: str, env_file: str | Path | None = None) -> str:
    """The value of one of `SANDBOX_SECRETS`; empty where there is none.

    Raises:
        NotConfigured: the file cannot be read.
    """
    return (_file_values(env_file) | dict(os.environ)).get(name, "")


def environment(**chosen: str) -> dict[str, str]:
    """The environment for another process: ours, with these settings and no others."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith(_PREFIX)}, **chosen}


def misspelt(env_file: str | Path | None = None, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables that look like a setting spelt wrong, each with the setting it resembles."""
    names = [f"{_PREFIX}{name.upper()}" for name in Settings.model_fields]
    given = _file_values(env_file) | dict(os.environ if environ is None else environ)
    strangers = (key for key in given if key.startswith(_PREFIX) and key not in names)
    near = ((key, difflib.get_close_matches(key, names, n=1, cutoff=0.85)) for key in strangers)
    return {key: match[0] for key, match in near if match}


def _file_values(env_file: str | Path | None) -> dict[str, str]:
    if env_file is None:
        return {}
    try:
        with Path(env_file).open(encoding="utf-8-sig") as lines:
            found = dotenv_values(stream=lines, interpolate=False)
    except (OSError, UnicodeDecodeError):
        raise _unreadable() from None
    return {key: value for key, value in found.items() if value is not None}


def _unreadable() -> NotConfigured:
    hint = "Pass an existing .env file in UTF-8."
    return NotConfigured("--env-file", "--env-file names a file that cannot be read.", hint=hint)


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
    setting = f"{_PREFIX}{name.upper()}"
    return NotConfigured(setting, f"{setting} {text}.")
