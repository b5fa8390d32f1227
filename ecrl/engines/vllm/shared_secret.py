"""The secret that a training run and its servers share: who does not have it gets nothing from either.

It goes from one to the other in the clear, so it keeps strangers out of a network that others use, but not
those who can read its traffic.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets

from ecrl.errors import UsageError

#: Environment variable that holds the secret, for `ecrl serve` and for the run.
TOKEN = "ECRL_SERVER_TOKEN"
_SHORTEST = 16  # characters
_ADVICE = f"export {TOKEN}=$(openssl rand -hex 32) gives it and the other side one"


def token_of(whom: str) -> str:
    """Return the secret from the environment.

    Args:
        whom: who needs it, for the message.

    Raises:
        UsageError: there is none, or one that is too short or not printable.
    """
    token = os.environ.get(TOKEN, "")
    if not token:
        raise UsageError(f"{whom} needs the secret of its servers in {TOKEN}; {_ADVICE}.")
    if len(token) < _SHORTEST or not (token.isascii() and token.isprintable()) or " " in token:
        raise UsageError(
            f"{TOKEN} must have at least {_SHORTEST} printable ASCII characters and no spaces; {_ADVICE}."
        )
    return token


def new_token() -> str:
    """Make a secret of 256 bits."""
    return secrets.token_hex(32)


def bearer(token: str) -> str:
    """Return the value of the ``Authorization`` header that presents the secret."""
    return f"Bearer {token}"


def presents(header: str, token: str) -> bool:
    """Whether an ``Authorization`` header presents the secret; takes as long for any wrong one."""
    return hmac.compare_digest(_digest(header), _digest(bearer(token)))


def proof(token: str, challenge: bytes, rank: int) -> bytes:
    """Return what shows, in answer to a challenge, that a receiver of weights has the secret (32 bytes)."""
    return hmac.new(token.encode(), b"ecrl weights" + challenge + rank.to_bytes(4, "big"), "sha256").digest()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
