"""The client of one replica: a server that ``ecrl serve`` started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from ecrl.engines.base import Completion, Request
from ecrl.engines.checksum import Receipt
from ecrl.engines.vllm.requirements import OLDEST, is_old
from ecrl.engines.vllm.sampling_params import completion_params
from ecrl.engines.vllm.shared_secret import TOKEN
from ecrl.engines.vllm.wire import pack_ints, unpack_floats, unpack_ints
from ecrl.errors import EcrlError, UsageError

QUICK = 5.0  # seconds for a request that does no work


class ForeignServerError(httpx.HTTPError):
    """The answer is not one of `ecrl serve`: another server or a proxy runs at this URL."""


@contextmanager
def _parsing_answer(url: str) -> Iterator[None]:
    """Turn an error in parsing an answer into a ``ForeignServerError``.

    Raises:
        ForeignServerError: the answer is not JSON, or lacks what was looked up in it.
    """
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ForeignServerError(f"{url} answers, but is not an `ecrl serve`") from None


@dataclass(frozen=True)
class Status:
    """What a server says of itself.

    Attributes:
        vllm: version of vLLM.
        boot: differs after a restart.
        version: version of the weights; negative if they are of no run.
        processed: tokens processed since the start, of prompts and completions.
        workers: processes over which it splits the model.
        max_model_len: longest prompt and completion together, in tokens.
        max_num_seqs: the most sequences that it draws at once.
        adapter_rank: the largest rank of adapters that it takes; 0 if it takes none.
        adaptable: last parts of the names of the layers that can have one.
    """

    vllm: str
    boot: str
    version: int
    processed: int
    workers: int
    max_model_len: int
    max_num_seqs: int
    adapter_rank: int
    adaptable: list[str]


class Replica:
    """One server. All of its calls raise ``httpx.HTTPError`` if they fail or are not answered in time.

    Args:
        url: address, e.g. ``http://10.0.0.7:8000``.
        timeout: seconds for a call that does work.

    Raises:
        UsageError: the URL is not valid.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.url = url.rstrip("/")
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("http", "https") and parts.port != 0  # a port above 65535 raises
            self.host = parts.hostname or ""
        except ValueError:
            valid = False
        if not (valid and self.host):
            raise UsageError(f"engine.urls: {url!r} is no URL of a server; write http://HOST:PORT.")
        self.timeout = timeout

    async def check(self, client: httpx.AsyncClient) -> Status:
        """Check that the server answers, is an `ecrl serve` of a recent vLLM, and shares our secret.

        Raises:
            UsageError: one of these does not hold.
        """
        try:
            status = await self.status(client)
            with _parsing_answer(self.url):
                old = is_old(status.vllm)
        except ForeignServerError as error:
            raise UsageError(f"{error}; start one with `ecrl serve`, or correct engine.urls.") from None
        except httpx.HTTPStatusError as error:
            code = error.response.status_code
            if code == 401:
                raise UsageError(
                    f"The server at {self.url} does not accept this run's secret (401): {TOKEN} must be the "
                    "same for `ecrl serve` and for the run."
                ) from None
            raise UsageError(
                f"The server at {self.url} was not started by this version's `ecrl serve` (it answers "
                f"{code}); start it with this version, or correct engine.urls."
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UsageError(
                f"No vLLM server answers at {self.url} ({type(error).__name__}); start one there with "
                "`ecrl serve model.path=… port=…`, or correct engine.urls."
            ) from None
        if old:
            wanted = ".".join(map(str, OLDEST))
            raise UsageError(
                f"The server at {self.url} runs vLLM {status.vllm}; {wanted} or later is needed."
            )
        return status

    async def check_model(
        self, client: httpx.AsyncClient, policy: Mapping[str, int], dtype: str, longest: int
    ) -> None:
        """Compare the server's model with the policy.

        Args:
            client: the HTTP client to use.
            policy: the policy's description by ``worker.describe``.
            dtype: type of the weights that will be sent.
            longest: number of tokens that the server must accept in a sequence.

        Raises:
            UsageError: the server's model has another size, vocabulary or precision, or the server accepts
                only shorter sequences.
        """
        try:
            served = await self._post(client, "/model", {}, self.timeout)
            with _parsing_answer(self.url):
                served = {name: served[name] for name in ("dtype", "max_model_len", *policy)}
        except ForeignServerError as error:
            raise UsageError(f"{error} of this version; start it with this version.") from None
        except httpx.HTTPError as error:
            raise UsageError(
                f"The server at {self.url} cannot describe its model ({cause(error)}); start it again."
            ) from None
        if served["dtype"] != dtype:
            raise UsageError(
                f"The server at {self.url} serves {served['dtype']}, but engine.dtype={dtype}; make them "
                "equal."
            )
        if served["max_model_len"] < longest:
            raise UsageError(
                f"The server at {self.url} takes {served['max_model_len']} tokens a sequence, but a prompt "
                f"and its completion may have {longest} (rollout.max_prompt_tokens, where it is set, and the "
                "largest max_new_tokens); start it with a larger max_model_len."
            )
        for name, value in policy.items():
            if served[name] != value:
                what = f"{name}={served[name]}, but the policy has {value}"
                if name == "vocabulary":
                    what = "another tokenizer: its token ids mean other texts than the policy's"
                raise UsageError(
                    f"The server at {self.url} serves a model with {what}; start it with the policy's "
                    "model.path."
                )

    async def status(self, client: httpx.AsyncClient, timeout: float = QUICK) -> Status:
        """Ask how the server is."""
        answer = await self._post(client, "/status", {}, timeout)
        with _parsing_answer(self.url):
            names = Status.__dataclass_fields__
            return Status(**{name: _typed(answer[name], names[name].type) for name in names})

    async def join(self, client: httpx.AsyncClient, address: str, port: int, rank: int, size: int) -> None:
        """Connect the server's workers to the trainer's channel, as ``rank`` and the following ones."""
        body = {"address": address, "port": port, "rank": rank, "size": size, "timeout": self.timeout}
        await self._post(client, "/weights/join", body, self.timeout)

    async def receive(self, client: httpx.AsyncClient, version: int) -> None:
        """Load the weights that come through the channel."""
        await self._post(client, "/weights/receive", {"version": version}, None)

    async def receipts(self, client: httpx.AsyncClient, shapes: Mapping[str, list[int]]) -> list[Receipt]:
        """Ask for the reports of the server's workers of the weights that they hold.

        Args:
            client: the HTTP client to use.
            shapes: shape of every tensor that was sent, by name.
        """
        answer = await self._post(client, "/weights/receipts", {"shapes": dict(shapes)}, self.timeout)
        with _parsing_answer(self.url):
            first, *others = answer["workers"]
            return [
                Receipt(version=a["version"], checksums=dict(a["checksums"]), unsent=list(a["unsent"]))
                for a in (first, *others)
            ]

    async def accept(self, client: httpx.AsyncClient, version: int) -> None:
        """Empty the prefix cache of older weights, and mark later completions with this version."""
        await self._post(client, "/weights/accept", {"version": version}, self.timeout)

    async def probe(self, client: httpx.AsyncClient, token_ids: list[int]) -> list[float]:
        """Return the log-probabilities of a prompt's tokens after the first, nats."""
        answer = await self._post(client, "/probe", {"prompt": pack_ints(token_ids)}, self.timeout)
        with _parsing_answer(self.url):
            logprobs = unpack_floats(answer["logprobs"])
            if len(logprobs) != len(token_ids) - 1:
                raise ValueError(len(logprobs))
            return logprobs

    async def complete(self, client: httpx.AsyncClient, request: Request, eos_ids: list[int]) -> Completion:
        """Generate one completion; it may take any time.

        Args:
            client: the HTTP client to use.
            request: what to generate.
            eos_ids: token ids that end a completion.

        Raises:
            EcrlError: the server refuses the request.
        """
        params = completion_params(request.sampling, request.key, eos_ids)
        body = {"prompt": pack_ints(request.prompt), "sampling": params}
        try:
            answer = await self._post(client, "/generate", body, None)
        except httpx.HTTPStatusError as error:
            if error.response.status_code in (400, 413):
                raise EcrlError(f"The server at {self.url} refuses a request: {cause(error)}.") from None
            raise
        with _parsing_answer(self.url):
            versions = [(int(held), int(count)) for held, count in answer["versions"]]
            completion = Completion(
                token_ids=unpack_ints(answer["tokens"]),
                logprobs=unpack_floats(answer["logprobs"]),
                entropy=None,
                finish_reason={"stop": "stop", "length": "length"}[answer["finish"]],  # type: ignore[arg-type]
                weights_version=versions[-1][0],
                earlier=tuple(versions[:-1]),
            )
            if len(completion.logprobs) != len(completion.token_ids):
                raise ValueError(len(completion.logprobs))
        return completion

    async def _post(
        self, client: httpx.AsyncClient, path: str, body: Mapping[str, Any], timeout: float | None
    ) -> dict[str, Any]:
        limit = httpx.Timeout(timeout, connect=QUICK)
        answer = (await client.post(self.url + path, json=body, timeout=limit)).raise_for_status()
        with _parsing_answer(self.url):
            found: dict[str, Any] = answer.json()
            return found


def _typed(value: Any, kind: Any) -> Any:
    """Return the value of a field whose annotation is ``kind``.

    Raises:
        TypeError: it has another type.
    """
    if type(value).__name__ != kind.partition("[")[0]:
        raise TypeError(kind)
    return value


def cause(error: Exception) -> str:
    """Say in a line why a call failed; what the server said goes before what HTTP says."""
    if isinstance(error, httpx.HTTPStatusError):
        try:
            return str(error.response.json()["error"])[:300]
        except (ValueError, LookupError, TypeError):
            return f"it answers {error.response.status_code}"
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
