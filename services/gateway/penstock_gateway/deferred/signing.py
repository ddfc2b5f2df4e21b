"""Signatures of webhooks after the Standard Webhooks specification 1.0.0, and the secrets they are made with. Pure.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac

SECRET_PREFIX = "whsec_"
_PURPOSE = b"penstock webhook secret v1\0"


def hkdf(key: bytes, info: bytes) -> bytes:
    """32 bytes by HKDF-SHA256 (RFC 5869) without a salt: one block is all that they take."""
    extracted = hmac.digest(bytes(hashlib.sha256().digest_size), key, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def organization_secret(gateway_secret: str, organization_id: str) -> bytes:
    """The secret of one organization. Nothing needs to be kept, and none says anything of another's."""
    return hkdf(gateway_secret.encode(), _PURPOSE + organization_id.encode())


def written(secret: bytes) -> str:
    """A secret as users are given it, and as the libraries of the specification take it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def signature(secret: bytes, webhook_id: str, unix_s: int, body: bytes) -> str:
    """The value of the webhook-signature header. `webhook_id` must hold no full stop."""
    signed = f"{webhook_id}.{unix_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, "sha256")).decode()
