"""Uploads an exported policy to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from ecrl.errors import EcrlError, UsageError

#: The client's HTTP library is another one in some versions; its errors share this base.
_TRANSPORT: Any = HfHubHTTPError.__bases__[0]


def check_push(name: str) -> None:
    """Refuse, before anything is exported, a name that is none, or a machine without a token.

    Raises:
        UsageError: says what to do.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UsageError(f"--push {name!r} is no name of a model on the hub: {_line(error)}") from None
    if get_token() is None:
        raise UsageError("--push needs a token of the Hugging Face hub: `hf auth login`, or set HF_TOKEN.")


def push(folder: Path, name: str) -> str:
    """Make the model on the hub if it is not there, and upload all files in one commit.

    Returns:
        Where it is.

    Raises:
        EcrlError: the hub refused it or did not answer; the folder stays.
    """
    api = HfApi()
    try:
        where = api.create_repo(name, exist_ok=True)
        api.upload_folder(
            repo_id=where.repo_id, folder_path=folder, commit_message="Policy trained with ecrl"
        )
    except (OSError, ValueError, _TRANSPORT) as error:
        raise EcrlError(f"{name} could not be pushed to {api.endpoint}: {_line(error)}") from None
    return str(where)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
