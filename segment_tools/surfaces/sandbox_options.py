"""What the command line tells a sandbox, checked. Loaded when one is started."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from segment_tools.environment import sandbox_secret
from segment_tools.errors import NotConfigured
from segment_tools.sandbox.access import is_local
from segment_tools.sandbox.faults import fault_in
from segment_tools.sandbox.oauth import EVERY_SOURCE, OAuth, load_key
from segment_tools.sandbox.options import Options, Spaces
from segment_tools.sandbox.sources import Sources
from segment_tools.sandbox.store import Retention
from segment_tools.sandbox.webhooks import MOST, Webhooks, webhook_of


def options_of(given: Namespace) -> Options:
    """The options.

    Raises:
        NotConfigured: one is wrong, or a file that it names cannot be read.
    """
    try:
        faults = tuple(map(fault_in, given.fault))
    except ValueError as error:
        raise NotConfigured("--fault", f"--fault: {error}.") from None
    return Options(
        sources=Sources(dict(given.write_key)),
        destinations=tuple(dict.fromkeys(given.destination)),
        spaces=Spaces(dict(given.space), given.profile_rate),
        retention=Retention(given.keep_messages or None, given.keep_days),
        token=_token(given),
        faults=faults,
        oauth=_oauth(given),
        webhooks=_webhooks(given),
    )


def _token(given: Namespace) -> str | None:
    token = given.token or sandbox_secret("SEGMENT_SANDBOX_TOKEN", given.env_file)
    if not token and not is_local(given.host):
        text = "Others than this machine could read what the sandbox took."
        raise NotConfigured("--host", text, hint="Set SEGMENT_SANDBOX_TOKEN or pass --token too, or leave --host out.")
    if not token.isascii():
        raise NotConfigured("--token", "--token must be plain ASCII: headers carry nothing else.")
    return token or None


def _webhooks(given: Namespace) -> Webhooks:
    try:
        found = tuple(dict.fromkeys(map(webhook_of, given.webhook)))
    except ValueError as error:
        raise NotConfigured("--webhook", f"--webhook {error}.") from None
    if len(found) > MOST:
        raise NotConfigured("--webhook", f"--webhook is given {len(found)} times; Segment has {MOST} at most.")
    if not found and (given.webhook_secret or given.webhook_batch):
        text = "--webhook-secret and --webhook-batch say how to send messages on, but not where."
        raise NotConfigured("--webhook", text, hint="Add --webhook URL.")
    secret = (
        sandbox_secret("SEGMENT_SANDBOX_WEBHOOK_SECRET", given.env_file)
        if given.webhook_secret is None
        else given.webhook_secret
    )
    return Webhooks(found, secret, given.webhook_batch)


def _oauth(given: Namespace) -> OAuth:
    keys: dict[tuple[str, str], Any] = {}
    for app, key, file in given.oauth_app:
        try:
            keys[app, key] = load_key(Path(file).expanduser().read_bytes())
        except OSError as error:
            text = f"--oauth-app: {file} cannot be read ({error.strerror})."
            raise NotConfigured("--oauth-app", text, hint="Pass the file of the app's public key.") from None
        except ValueError as error:
            raise NotConfigured("--oauth-app", f"--oauth-app: {file} {error}.") from None
    known = {EVERY_SOURCE, *dict(given.write_key).values()}
    if not known.issuperset(given.oauth_source):
        hint = "Add --write-key NAME=KEY with the same name, or pass * for every source."
        raise NotConfigured("--oauth-source", "--oauth-source names a source that no --write-key does.", hint=hint)
    if given.oauth_source and not keys:
        hint = "Add --oauth-app APP_ID:KEY_ID=FILE."
        raise NotConfigured("--oauth-source", "With --oauth-source alone nobody could get a token.", hint=hint)
    return OAuth(keys, frozenset(given.oauth_source), given.oauth_token_seconds)
