"""Which platform to talk to, and with which key: explicit arguments, then environment, then file."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from penstock.errors import NotConfigured

API_URL = "PENSTOCK_API_URL"
API_KEY = "PENSTOCK_API_KEY"
_MEND = f"run `penstock up`, or set {API_URL} and {API_KEY}"


@dataclass(frozen=True, slots=True)
class Config:
    """Where the API is and what opens it."""

    api_url: str
    api_key: str = field(repr=False)
    key_file: Path | None = None
    """The file that the key was read from, when it has one of its own."""
    key_from_environment: bool = False


def config_file(environ: Mapping[str, str]) -> Path:
    """`$XDG_CONFIG_HOME/penstock/config.json`, by default under `~/.config`; `penstock up` writes it."""
    base = environ.get("XDG_CONFIG_HOME", "")
    # The specification of base directories says to ignore a relative path.
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".config"
    return root / "penstock" / "config.json"


def load(api_url: str | None = None, api_key: str | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """The configuration in force. Raises NotConfigured, which says what is missing.

    A key in the file is used only with the address in that file: it is never sent elsewhere because
    an argument or the environment named another address.
    """
    environ = os.environ if environ is None else environ
    path = config_file(environ)
    url = api_url or environ.get(API_URL)
    key = api_key or environ.get(API_KEY)
    if url and key:
        return Config(_checked_url(url), _checked_key(key), key_from_environment=not api_key)
    stored = _read(path)
    stored_url = stored.get("api_url")
    if not url:
        if not stored_url:
            raise NotConfigured(f"No platform is configured: {_MEND}.")
        url = str(stored_url)
    url = _checked_url(url)
    if key:
        return Config(url, _checked_key(key), key_from_environment=not api_key)
    if not stored_url or _checked_url(str(stored_url)) != url:
        raise NotConfigured(f"There is no API key for {url}: set {API_KEY}.")
    return _with_stored_key(url, stored, path)


def _with_stored_key(url: str, stored: dict[str, Any], path: Path) -> Config:
    named = stored.get("api_key_file")
    if named:
        key_file = path.parent / Path(str(named)).expanduser()
        try:
            return Config(url, _checked_key(key_file.read_text()), key_file=key_file)
        except (OSError, UnicodeDecodeError) as error:
            raise NotConfigured(f"The API key file named in {path} cannot be read ({error}): {_MEND}.") from error
    if stored.get("api_key"):
        return Config(url, _checked_key(str(stored["api_key"])))
    raise NotConfigured(f"{path} holds no API key: {_MEND}.")


def _read(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise NotConfigured(f"{path} cannot be read ({error}): mend or remove it, then {_MEND}.") from error
    if not isinstance(stored, dict):
        raise NotConfigured(f"{path} must hold a JSON object: mend or remove it, then {_MEND}.")
    return stored


def _checked_url(text: str) -> str:
    text = text.strip().rstrip("/")
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        raise NotConfigured(f"The API address {text!r} is not usable: it must look like http://127.0.0.1:8080.")
    return text


def _checked_key(text: str) -> str:
    text = text.strip()
    if not text or not text.isascii() or not text.isprintable():
        raise NotConfigured(f"The API key must be one line of plain text: check {API_KEY} or run `penstock up`.")
    return text
