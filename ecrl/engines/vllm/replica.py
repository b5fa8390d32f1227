"""The client of one replica: a vLLM server that ``ecrl serve`` started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from ecrl.engines.base import Completion, Sampling
from ecrl.engines.checksum import Receipt
from ecrl.engines.vllm.requirements import OLDEST, is_old
from ecrl.engines.vllm.sampling_params import completion_params, probe_params
from ecrl.errors import EcrlError, UsageError

QUICK = 10.0  # seconds for a request that does no work


class StaleReplicaError(Exception):
    """A replica answered with other weights than it was sent, e.g. because it was restarted."""


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


class Replica:
    """One vLLM server.

    Args:
        url: address, e.g. ``http://10.0.0.7:8000``.
        timeout: seconds for a request that does work.

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

    def check(self) -> None:
        """Check that the server answers and was started by a recent ``ecrl serve``.

        Raises:
            UsageError: it cannot be reached, is too old, or was not started by ``ecrl serve``.
        """
        try:
            answer = self._get("/version")
            with _parsing_answer(self.url):
                found = str(answer.json()["version"])
                old = is_old(found)
            takes_weights = self._get("/weight_info", expect=False).status_code == 200
        except ForeignServerError as error:
            raise UsageError(f"{error}; start one with `ecrl serve`, or correct engine.urls.") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UsageError(
                f"No vLLM server answers at {self.url} ({type(error).__name__}); start one there with "
                "`ecrl serve model.path=… port=…`, or correct engine.urls."
            ) from None
        if old:
            wanted = ".".join(map(str, OLDEST))
            raise UsageError(f"The server at {self.url} runs vLLM {found}; {wanted} or later is needed.")
        if not takes_weights:
            raise UsageError(
                f"The vLLM server at {self.url} cannot take weights; start it with `ecrl serve`, which "
                "enables that."
            )

    def check_model(self, policy: Mapping[str, int], dtype: str, longest: int) -> None:
        """Compare the server's model with the policy.

        Args:
            policy: the policy's description by ``worker.describe``.
            dtype: type of the weights that will be sent.
            longest: number of tokens that the server must accept in a sequence.

        Raises:
            UsageError: the server's model has another size, vocabulary or precision, or the server accepts
                only shorter sequences.
        """
        try:
            served, *_ = self.rpc("ecrl_model")
            with _parsing_answer(self.url):
                served = {name: served[name] for name in ("dtype", "max_model_len", *policy)}
        except ForeignServerError as error:
            raise UsageError(f"{error} of this version; start it with this version.") from None
        except httpx.HTTPError as error:
            raise UsageError(
                f"The server at {self.url} was not started by this version's `ecrl serve` "
                f"({str(error).splitlines()[0]})."
            ) from None
        if served["dtype"] != dtype:
            raise UsageError(
                f"The server at {self.url} serves {served['dtype']}, but engine.dtype={dtype}; make them "
                "equal."
            )
        if served["max_model_len"] < longest:
            raise UsageError(
                f"The server at {self.url} takes {served['max_model_len']} tokens a sequence, but a prompt "
                f"and rollout.max_new_tokens={longest - 1} are more; start it with a larger max_model_len."
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

    def healthy(self) -> bool:
        """Whether the server answers and its engine runs."""
        try:
            return bool(self._get("/health", expect=False).status_code == 200)
        except httpx.HTTPError:
            return False

    def rpc(self, method: str, *args: Any) -> list[Any]:
        """Call a method of all of the server's workers; see ``WeightsExtension``.

        Returns:
            What each worker returned, one or more.

        Raises:
            httpx.HTTPError: the call failed, or was not answered in time.
        """
        answer = self._post("/collective_rpc", {"method": method, "args": list(args)})
        with _parsing_answer(self.url):
            first, *others = answer.json()["results"]
            return [first, *others]

    def workers(self) -> int:
        """Return over how many workers the server splits the model.

        Raises:
            httpx.HTTPError: the call failed, or was not answered in time.
        """
        return len(self.rpc("ecrl_rank"))

    def receipts(self, shapes: dict[str, list[int]]) -> list[Receipt]:
        """Ask for the reports of the server's workers of the weights that they hold.

        Args:
            shapes: shape of every tensor that was sent, by name.

        Raises:
            httpx.HTTPError: the call failed, or was not answered in time.
        """
        answers = self.rpc("ecrl_receipt", shapes)
        with _parsing_answer(self.url):
            return [
                Receipt(version=a["version"], checksums=dict(a["checksums"]), unsent=list(a["unsent"]))
                for a in answers
            ]

    def accept(self, version: int) -> None:
        """Empty the prefix cache of older weights, and mark later completions with this version.

        Raises:
            EcrlError: the server kept its prefix cache.
            httpx.HTTPError: the call failed, or was not answered in time.
        """
        answer = self._post("/reset_prefix_cache", {})
        with _parsing_answer(self.url):
            emptied = answer.json()["success"]
        if not emptied:
            raise EcrlError(f"The server at {self.url} kept its prefix cache of older weights.")
        self._post("/update_weight_version", {"new_version": str(version)})

    def probe(self, token_ids: list[int]) -> list[float]:
        """Return the log-probabilities of a prompt's tokens after the first, nats.

        Raises:
            httpx.HTTPError: the call failed, or was not answered in time.
        """
        body = {"token_ids": token_ids, "sampling_params": probe_params()}
        answer = self._post("/inference/v1/generate", body)
        with _parsing_answer(self.url):
            steps = answer.json()["prompt_logprobs"]
            return [step[str(t)]["logprob"] for t, step in zip(token_ids[1:], steps[1:], strict=True)]

    async def complete(
        self,
        client: httpx.AsyncClient,
        prompt: list[int],
        sampling: Sampling,
        key: int,
        eos_ids: list[int],
        version: int,
    ) -> Completion:
        """Generate one completion.

        Args:
            client: the HTTP client to use.
            prompt: token ids.
            sampling: how to sample.
            key: 64-bit key of the completion's random stream.
            eos_ids: token ids that end a completion.
            version: version of the weights that the server must use.

        Raises:
            httpx.HTTPError: the request failed, was not answered in time, or got an unreadable answer.
            StaleReplicaError: the server used other weights.
            EcrlError: the server refuses the request.
        """
        body = {"token_ids": prompt, "sampling_params": completion_params(sampling, key, eos_ids)}
        answer = await client.post(f"{self.url}/inference/v1/generate", json=body)
        if 400 <= answer.status_code < 500:
            raise EcrlError(f"The server at {self.url} refuses a request: {answer.text[:300]}")
        answer.raise_for_status()
        with _parsing_answer(self.url):
            (choice,) = answer.json()["choices"]
            versions = {span["version"] for span in choice["weight_versions"]}
            completion = Completion(
                token_ids=choice["token_ids"],
                logprobs=[step["logprob"] for step in choice["logprobs"]["content"]],
                entropy=None,
                finish_reason="stop" if choice["finish_reason"] == "stop" else "length",
                weights_version=version,
            )
        if versions != {str(version)}:
            raise StaleReplicaError(f"{self.url} answered with weights {sorted(versions)}, not {version}")
        return completion

    def _get(self, path: str, expect: bool = True) -> httpx.Response:
        answer = httpx.get(self.url + path, timeout=QUICK)
        return answer.raise_for_status() if expect else answer

    def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=self.timeout).raise_for_status()
