"""The settings: what each takes, and the one line that a wrong one gets."""

from pathlib import Path

import pytest
from support import KEY, settings

from segment_tools import NotConfigured, Segment, Settings
from segment_tools.settings import misspelt

WRONG = {
    "SEGMENT_WRITE_KEY": ["has space", 'quo"te', "wk:x", "schlüssel", "YOUR_WRITE_KEY"],
    "SEGMENT_SOURCES": [
        "web",
        "[1]",
        '{"web": 5}',
        '{"web": "has space"}',
        '{"": "key"}',
        "[" * 20_000,
        '{"\\ud800": "key"}',
    ],
    "SEGMENT_REGION": ["mars", "US-east"],
    "SEGMENT_DATA_PLANE_URL": [
        "http://api.segment.io",
        "https://user:hunter2-secret@api.segment.io",
        "https://user@api.segment.io",
        "https://api.segment.io?key=hunter2-secret",
        "https://api.segment.io/#x",
        "https://",
        "api.segment.io:99999",
        "api segment io",
        "https://api.segment.io/v1/../admin",
        "file:///etc/passwd",
        "//api.segment.io",
    ],
    "SEGMENT_ANONYMOUS_ID": ["maybe"],
    "SEGMENT_ALLOW_WRITE_KEY_ARG": ["maybe"],
    "SEGMENT_DRY_RUN": ["2"],
    "SEGMENT_METRICS": ["on please"],
    "SEGMENT_READ_ONLY": ["maybe"],
    "SEGMENT_TOOLSETS": ["tracking,flying"],
    "SEGMENT_REDACT": [
        "no-such-hunter2.json",
        "[]",
        '{"email": "hunter2"}',
        '{"email": 5}',
        '{"a..b": "drop"}',
        '{"": "drop"}',
        '{"email": "mask", "email": "drop"}',
        '{"userId": "drop"}',
        '{"email": "hash"}',
        '{"email"',
        "{" * 20_000,
    ],
    "SEGMENT_REDACT_KEY": ["hunter2", "hunter2 hunter2 hunter2"],
    "SEGMENT_BLOCK_SECRETS": ["maybe"],
    "SEGMENT_REQUIRE_CONSENT": ["maybe"],
    "SEGMENT_PROFILE_TOKEN": ["hunter2 secret", "caf\u00e9"],
    "SEGMENT_SPACE_ID": ["spa/../x", "a b"],
    "SEGMENT_PROFILE_URL": ["http://profiles.segment.com", "https://user:hunter2-secret@profiles.segment.com"],
    "SEGMENT_PROFILE_HIDE_TRAITS": ["email,\x00"],
    "SEGMENT_WEBHOOK_SECRET": ["hunter2 secret"],
    "SEGMENT_WEBHOOK_PORT": ["-1", "65536", "http"],
    "SEGMENT_WEBHOOK_HOST": ["a b", "http://x/"],
    "SEGMENT_INBOX": ["inbox.db", "sqlite://", "mysql://u:hunter2@host/db", "redis://u:hunter2@host/abc"],
    "SEGMENT_INBOX_DAYS": ["0", "nan", "soon"],
    "SEGMENT_INBOX_COUNT": ["0", "many"],
    "SEGMENT_OUTBOX": ["outbox.db", "sqlite://", "mysql://u:hunter2@host/db", "memory", "rediss://hunter2@host/0/1"],
    "SEGMENT_DELIVERY": ["queued", "later"],
    "SEGMENT_OUTBOX_MAX_BYTES": ["0", "1 GB"],
    "SEGMENT_FLUSH_SECONDS": ["-1", "nan", "soon"],
    "SEGMENT_DERIVE_MESSAGE_ID": ["maybe"],
    "SEGMENT_CDN_URL": ["http://cdn.segment.com", "https://u:hunter2@cdn.segment.com"],
    "SEGMENT_REQUESTS_PER_SECOND": ["0", "1.5", "many"],
    "SEGMENT_CONCURRENCY": ["0", "many"],
    "SEGMENT_BATCH_CALLS": ["sometimes"],
    "SEGMENT_RATE_LIMIT": [
        "localhost:6379",
        "redis://",
        "http://u:hunter2@host/0",
        "sqlite:///hunter2.db",
        "redis://host/hunter2",
    ],
    "SEGMENT_OAUTH_CLIENT_ID": ["hunter2 app", "caf\u00e9"],
    "SEGMENT_OAUTH_KEY_ID": ["hunter2 key"],
    "SEGMENT_OAUTH_PRIVATE_KEY": [
        "/no/such/hunter2.pem",
        ".",
        "hunter2\x00",
        "-----BEGIN PRIVATE KEY-----\\nhunter2\\n-----END PRIVATE KEY-----",
    ],
    "SEGMENT_OAUTH_SCOPE": ["hunter2!", "a,b"],
    "SEGMENT_OAUTH_URL": ["http://oauth2.segment.io", "https://u:hunter2@oauth2.segment.io"],
    "SEGMENT_TRACKING_PLAN": [
        "/no/such/hunter2.json",
        ".",
        "hunter2\x00",
        "segment:",
        "segment:rs_hunter2",
        "segment:tp_1/../x",
    ],
    "SEGMENT_TRACKING_PLAN_POLICY": ["maybe", "block"],
    "SEGMENT_PUBLIC_API_TOKEN": ["hunter2 secret"],
    "SEGMENT_PUBLIC_API_URL": ["http://api.segmentapis.com", "https://u:hunter2@api.segmentapis.com"],
    "SEGMENT_WARNINGS_OFF": ["short_message", "flying"],
    "SEGMENT_AGENT_RATE": ["0", "many", "1.5"],
    "SEGMENT_SERVER_RATE": ["0", "many"],
    "SEGMENT_LOOP_LIMIT": ["-1", "often"],
    "SEGMENT_ALLOW_EVENTS": ["Order *,type:hunter2", "type:", "a\x00b"],
    "SEGMENT_DENY_EVENTS": ["type:Track", "a\nb"],
    "SEGMENT_CONFIRM": ["segment_hunter2", "type:hunter2", "segment_get_profile"],
    "SEGMENT_IMPORT_DIR": ["hunter2\x00"],
    "SEGMENT_AUDIT_LOG": ["hunter2\x00", "a\nb"],
    "SEGMENT_AUDIT_MAX_BYTES": ["0", "1 GB"],
    "SEGMENT_AUDIT_REQUIRED": ["maybe", "true"],
    "SEGMENT_TIMEOUT_SECONDS": ["0", "-1", "soon", "inf", "nan", "100000"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_setting_is_named_in_one_line_without_its_value(name: str, value: str) -> None:
    with pytest.raises(NotConfigured) as raised:
        Settings.from_env(environ={name: value})
    assert str(raised.value).startswith(name)
    assert "\n" not in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert raised.value.setting == name


def test_every_setting_has_a_wrong_value_in_the_table() -> None:
    assert set(WRONG) == {f"SEGMENT_{name.upper()}" for name in Settings.model_fields}


def test_without_any_setting_the_defaults_hold() -> None:
    read = Settings.from_env(environ={})
    assert (read.endpoint, read.anonymous_id, read.has_key) == ("https://api.segment.io", "require", False)
    assert (read.dry_run, read.read_only, read.allow_write_key_arg) == (False, False, False)
    assert read.timeout_seconds == 30


@pytest.mark.parametrize("blank", ["", "   "])
def test_a_blank_setting_is_absent(blank: str) -> None:
    assert Settings.from_env(environ={"SEGMENT_WRITE_KEY": blank, "SEGMENT_REGION": blank}) == Settings()


@pytest.mark.parametrize("yes", ["true", "TRUE", "1", "yes", "on"])
def test_switches_take_the_usual_words(yes: str) -> None:
    assert settings(dry_run=yes).dry_run


def test_the_region_chooses_the_host_and_a_url_goes_before_it() -> None:
    assert settings(region="eu").endpoint == "https://events.eu1.segmentapis.com"
    assert settings(region="eu", data_plane_url="api.example.com").endpoint == "https://api.example.com"


def test_a_plan_that_segment_has_needs_a_token() -> None:
    with pytest.raises(NotConfigured, match="needs SEGMENT_PUBLIC_API_TOKEN"):
        settings(tracking_plan="segment:tp_1")
    read = settings(tracking_plan="segment:tp_1", public_api_token="token-1", region="eu")
    assert (read.segment_plan, read.public_api_endpoint) == ("tp_1", "https://eu1.api.segmentapis.com")
    assert "token-1" in read.secrets
    assert "token-1" not in repr(read)


def test_to_block_needs_a_plan_and_to_warn_or_not_to_look_does_not() -> None:
    with pytest.raises(NotConfigured, match=r"block, which needs SEGMENT_TRACKING_PLAN: .* plan\.json"):
        settings(tracking_plan_policy="block")
    assert [settings(tracking_plan_policy=policy).checks_plan for policy in ("warn", "off")] == [False, False]


@pytest.mark.parametrize(
    "address", ["redis://h", "redis://u:p@h:6379/", "rediss://h/15?protocol=3", "redis:///0", "unix:///run/redis?db=1"]
)
def test_a_redis_server_is_named_with_or_without_the_number_of_a_database(address: str) -> None:
    read = settings(outbox=address, inbox=address, rate_limit=address)
    assert {each.get_secret_value() for each in (read.outbox, read.inbox, read.rate_limit) if each} == {address}


def test_a_redis_database_that_is_no_number_is_not_taken_for_the_first() -> None:
    for name in ("outbox", "inbox", "rate_limit"):
        with pytest.raises(NotConfigured, match="the number of a database, such as redis://localhost:6379/0"):
            settings(**{name: "redis://localhost:6379/abc"})


def test_no_representation_shows_a_key() -> None:
    read = settings(sources='{"web": "wk-OTHER-8f1d"}')
    segment = Segment(read)
    for shown in (
        repr(read),
        str(read),
        f"{read.model_dump()}",
        read.model_dump_json(),
        repr(segment),
        repr(read.sources),
    ):
        assert KEY not in shown
        assert "wk-OTHER-8f1d" not in shown


def test_a_file_gives_settings_that_the_environment_overrides(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# ours\nexport SEGMENT_WRITE_KEY='from-file'\nSEGMENT_REGION=eu\nOTHER=x\n", encoding="utf-8")
    assert Settings.from_env(file, {}).region == "eu"
    both = Settings.from_env(file, {"SEGMENT_WRITE_KEY": "from-environment"})
    assert both.write_key is not None
    assert both.write_key.get_secret_value() == "from-environment"


def test_a_byte_order_mark_hides_no_setting(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("SEGMENT_DRY_RUN=true\n", encoding="utf-8-sig")
    assert Settings.from_env(file, {}).dry_run


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(NotConfigured, match="--env-file"):
        Settings.from_env(file, {})


def test_a_misspelt_setting_in_a_file_is_recognised(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("SEGMENT_WRITE_KY=x\n", encoding="utf-8")
    assert misspelt(file, {}) == {"SEGMENT_WRITE_KY": "SEGMENT_WRITE_KEY"}


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="--env-file"):
        Settings.from_env(tmp_path / "none.env", {})


def test_the_embedded_sandbox_brings_its_own_key() -> None:
    read = Settings.from_env(environ={"SEGMENT_DATA_PLANE_URL": "sandbox"})
    assert read.has_key
    assert not read.takes_write_key


def test_the_embedded_sandbox_is_the_commands_to_start() -> None:
    with pytest.raises(NotConfigured, match="start `segment-tools sandbox`"):
        Segment(settings(data_plane_url="sandbox"))


def test_a_setting_spelt_wrong_is_recognised() -> None:
    given = {"SEGMENT_WRITEKEY": "x", "SEGMENT_DRYRUN": "1", "SEGMENT_PROJECT": "other", "SEGMENT_REGION": "us"}
    assert misspelt(None, given) == {"SEGMENT_WRITEKEY": "SEGMENT_WRITE_KEY", "SEGMENT_DRYRUN": "SEGMENT_DRY_RUN"}
