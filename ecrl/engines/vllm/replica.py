"""The client of one vLLM server that ``ecrl serve`` started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from ecrl.engines.base import Completion, Sampling
from ecrl.engines.checksum import Receipt
from ecrl.engines.vllm.requirements import OLDEST, is_old
from ecrl.errors import EcrlError, UsageError

QUICK = 10.0  # seconds for calls that do no work


class StaleReplicaError(Exception):
    """It answered with other weights than it was given, e.g. because it was restarted."""


class ForeignServerError(httpx.HTTPError):
    """It answered, but not as `ecrl serve` does: another server, or a proxy that speaks for it."""


@contextmanager
def _understood(url: str) -> Iterator[None]:
    """Call an answer that lacks what every answer has by its name.

    Raises:
        ForeignServerError: it is no JSON, or JSON of another shape.
    """
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ForeignServerError(f"{url} answers, but is not an `ecrl serve`") from None


class Replica:
    """One server.

    Args:
        url: e.g. ``http://10.0.0.7:8000``.
        timeout: seconds for a call that does work.

    Raises:
        UsageError: the URL is none.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.url = url.rstrip("/")
        try:
            parts = urlsplit(url)
            whole = parts.scheme in ("http", "https") and parts.port != 0  # a port beyond 65535 raises
            self.host = parts.hostname or ""
        except ValueError:
            whole = False
        if not (whole and self.host):
            raise UsageError(f"engine.urls: {url!r} is no URL of a server; write http://HOST:PORT.")
        self.timeout = timeout

    def check(self) -> None:
        """Look whether it is there, and what it is.

        Raises:
            UsageError: it cannot be reached, is too old, or was not started by ``ecrl serve``.
        """
        try:
            answer = self._get("/version")
            with _understood(self.url):
                found = str(answer.json()["version"])
                old = is_old(found)
            versioned = self._get("/weight_info", expect=False).status_code == 200
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
        if not versioned:
            raise UsageError(
                f"The vLLM server at {self.url} cannot take weights; start it with `ecrl serve`, which "
                "switches that on."
            )

    def check_model(self, policy: Mapping[str, int], dtype: str, longest: int) -> None:
        """Compare its model with the policy's.

        Args:
            policy: what ``vllm_worker.describe`` says of it.
            dtype: of the weights that it will be sent.
            longest: tokens that a sequence may have, at least.

        Raises:
            UsageError: it serves a model of another size, vocabulary or precision, or too short sequences.
        """
        try:
            served = self.rpc("ecrl_model")
            with _understood(self.url):
                served = {name: served[name] for name in ("dtype", "max_model_len", *policy)}
        except ForeignServerError as error:
            raise UsageError(f"{error} of this version; start it with this one's.") from None
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
        """Whether it answers, and its engine lives."""
        try:
            return bool(self._get("/health", expect=False).status_code == 200)
        except httpx.HTTPError:
            return False

    def rpc(self, method: str, *args: Any) -> Any:
        """Call a method of the server's worker; see ``WeightsExtension``.

        Raises:
            httpx.HTTPError: it failed, or did not answer in time.
        """
        answer = self._post("/collective_rpc", {"method": method, "args": list(args)})
        with _understood(self.url):
            return answer.json()["results"][0]

    def receipt(self, shapes: dict[str, list[int]]) -> Receipt:
        """What it says of the weights that it holds.

        Args:
            shapes: of every tensor that it was sent, by name.
        """
        told = self.rpc("ecrl_receipt", shapes)
        with _understood(self.url):
            return Receipt(
                version=told["version"], checksums=dict(told["checksums"]), unsent=list(told["unsent"])
            )

    def accept(self, version: int) -> None:
        """Forget what it computed with older weights, and stamp completions from now on.

        Raises:
            EcrlError: it holds on to its prefix cache.
            httpx.HTTPError: it failed.
        """
        answer = self._post("/reset_prefix_cache", {})
        with _understood(self.url):
            emptied = answer.json()["success"]
        if not emptied:
            raise EcrlError(f"The server at {self.url} kept its prefix cache of older weights.")
        self._post("/update_weight_version", {"new_version": str(version)})

    def probe(self, token_ids: list[int]) -> list[float]:
        """Log-probabilities, nats, of a prompt's tokens after the first."""
        params = {"max_tokens": 1, "temperature": 0, "prompt_logprobs": 0, "detokenize": False}
        body = {"token_ids": token_ids, "sampling_params": params}
        answer = self._post("/inference/v1/generate", body)
        with _understood(self.url):
            told = answer.json()["prompt_logprobs"]
            return [step[str(t)]["logprob"] for t, step in zip(token_ids[1:], told[1:], strict=True)]

    async def complete(
        self,
        client: httpx.AsyncClient,
        prompt: list[int],
        sampling: Sampling,
        key: int,
        eos_ids: list[int],
        version: int,
    ) -> Completion:
        """Draw one completion.

        Raises:
            httpx.HTTPError: it failed, did not answer in time, or answered nonsense.
            StaleReplicaError: it drew with other weights.
            EcrlError: it refuses the request.
        """
        params = {
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_new_tokens,
            "seed": key & (2**63 - 1),
            "stop_token_ids": eos_ids,
            "ignore_eos": True,  # the policy's own stop tokens, and no others
            "logprobs": 0,  # of the drawn token alone
            "detokenize": False,
        }
        body = {"token_ids": prompt, "sampling_params": params}
        answer = await client.post(f"{self.url}/inference/v1/generate", json=body)
        if 400 <= answer.status_code < 500:
            raise EcrlError(f"The server at {self.url} refuses a request: {answer.text[:300]}")
        answer.raise_for_status()
        with _understood(self.url):
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
