"""Addresses as settings give them: what is a host or a URL, and which are this machine's own."""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from pydantic_core import PydanticCustomError


def wrong(text: str) -> PydanticCustomError:
    """A setting's refusal, for pydantic to carry; the setting's name goes before the text."""
    return PydanticCustomError("setting", "{text}", {"text": text})


def base_url(value: str) -> str:
    """The data plane's address as a URL without `/v1` and without a slash at the end.

    A bare host is reached by https, a bare loopback host by http. The errors never repeat the value, which may
    hold a password.
    """
    bare = "://" not in value
    try:
        url = urlsplit(f"https://{value}" if bare else value)
        host, port = url.hostname or "", url.port
    except ValueError:
        raise wrong("is not a host or URL; pass something like api.segment.io") from None
    if url.username is not None or url.password is not None or url.query or url.fragment:
        raise wrong("must not hold a user name, password, query or fragment; pass the address alone")
    if not re.fullmatch(r"[A-Za-z0-9.:-]+", host) or re.search(r"[^A-Za-z0-9/._~-]|\.\.", url.path):
        raise wrong("is not a host or URL; pass something like api.segment.io")
    local = is_loopback(host)
    scheme = "http" if bare and local else url.scheme
    if scheme != "https" and not (scheme == "http" and local):
        raise wrong("must be https; http is allowed for this machine's own addresses alone")
    path = url.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{scheme}://{f'[{host}]' if ':' in host else host}{f':{port}' if port is not None else ''}{path}"


def is_loopback(host: str) -> bool:
    """Whether the host name is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
