"""The environment, and a `.env` file below it; the only reader of `os.environ`."""

import os
from collections.abc import Mapping
from pathlib import Path

from segment_tools.errors import NotConfigured

PREFIX = "SEGMENT_"
"""What every setting's name begins with."""

SANDBOX_SECRETS = ("SEGMENT_SANDBOX_TOKEN", "SEGMENT_SANDBOX_WEBHOOK_SECRET")
"""What a sandbox need not be told on its command line, where others could read it."""


def variables(env_file: str | Path | None = None, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of the file, and over them those of the environment, or of what stands for it.

    Raises:
        NotConfigured: the file cannot be read.
    """
    return _file_values(env_file) | dict(os.environ if environ is None else environ)


def sandbox_secret(name: str, env_file: str | Path | None = None) -> str:
    """The value of one of `SANDBOX_SECRETS`; empty where there is none.

    Raises:
        NotConfigured: the file cannot be read.
    """
    return variables(env_file).get(name, "")


def certificates() -> tuple[str | None, str | None]:
    """The file and the folder of the certificates to trust, by OpenSSL's own names for them; None where not set."""
    return os.environ.get("SSL_CERT_FILE") or None, os.environ.get("SSL_CERT_DIR") or None


def environment(**chosen: str) -> dict[str, str]:
    """The environment for another process: ours, with these settings and no others."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}, **chosen}


def user_folder() -> Path:
    """Where this program keeps what is the user's, as the system has it; not made."""
    from platformdirs import user_data_path

    return user_data_path("segment-tools", appauthor=False)


def _file_values(env_file: str | Path | None) -> dict[str, str]:
    if env_file is None:
        return {}
    from dotenv import dotenv_values

    try:
        with Path(env_file).open(encoding="utf-8-sig") as lines:
            found = dotenv_values(stream=lines, interpolate=False)
    except (OSError, UnicodeDecodeError):
        hint = "Pass an existing .env file in UTF-8."
        raise NotConfigured("--env-file", "--env-file names a file that cannot be read.", hint=hint) from None
    return {key: value for key, value in found.items() if value is not None}
