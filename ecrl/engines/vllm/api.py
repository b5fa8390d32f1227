"""The calls that a server answers: those that training needs, and no others."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from typing import Any, TypeVar

from ecrl.engines.vllm.adapters import adapter_request
from ecrl.engines.vllm.asgi import Body, Handler, Refusal
from ecrl.engines.vllm.progress import Progress
from ecrl.engines.vllm.sampling_params import probe_params
from ecrl.engines.vllm.wire import pack_floats, pack_ints, unpack_ints

T = TypeVar("T")

LOADING = "-1"  #: version of completions while weights change
#: Sampling parameters that a client may set, and their types.
_SAMPLING: Mapping[str, tuple[type, ...]] = {
    "temperature": (int, float),
    "top_p": (int, float),
    "top_k": (int,),
    "max_tokens": (int,),
    "seed": (int,),
    "stop_token_ids": (list,),
    "ignore_eos": (bool,),
    "logprobs": (int,),
    "detokenize": (bool,),
}


class Api:
    """Handlers over one vLLM engine.

    Args:
        engine: vLLM's ``AsyncLLM``.
        release: vLLM's version.
        progress: counts what the engine generates.
    """

    def __init__(self, engine: Any, release: str, progress: Progress) -> None:
        self._engine = engine
        self._release = release
        self._progress = progress
        self._boot = secrets.token_hex(8)
        self._version = LOADING
        config = engine.vllm_config
        self._longest: int = config.model_config.max_model_len
        self._vocabulary: int = config.model_config.get_vocab_size()
        self._most: int = config.scheduler_config.max_num_seqs
        self._workers: int = config.parallel_config.world_size
        self._rank: int = config.lora_config.max_lora_rank if config.lora_config else 0
        self._adapter = adapter_request() if self._rank else None
        self._adaptable: list[str] = []
        self._open = 0

    async def begin(self) -> None:
        """Prepare for the first run."""
        self._adaptable, *_ = await self._engine.collective_rpc("ecrl_start")
        await self.forget()

    def routes(self) -> dict[str, Handler]:
        """Return the handlers by path."""
        return {
            "/status": self.status,
            "/model": self.model,
            "/generate": self.generate,
            "/probe": self.probe,
            "/weights/join": self.join,
            "/weights/receive": self.receive,
            "/weights/receipts": self.receipts,
            "/weights/accept": self.accept,
        }

    async def status(self, body: Body) -> dict[str, Any]:
        """Say whether the engine runs, what it holds, and how much it has done."""
        if self._engine.errored:
            raise Refusal(503, "the engine has ended")
        return {
            "vllm": self._release,
            "boot": self._boot,
            "version": int(self._version),
            "processed": self._progress.tokens,
            "open": self._open,
            "workers": self._workers,
            "max_model_len": self._longest,
            "max_num_seqs": self._most,
            "adapter_rank": self._rank,
            "adaptable": self._adaptable,
        }

    async def model(self, body: Body) -> dict[str, Any]:
        """Describe the model; see ``WeightsExtension.ecrl_model``."""
        described, *_ = await self._engine.collective_rpc("ecrl_model")
        return dict(described)

    async def generate(self, body: Body) -> dict[str, Any]:
        """Draw one completion."""
        prompt = self._prompt(body)
        sampling = _sampling(_get(body, "sampling", dict))
        if len(prompt) + sampling["max_tokens"] > self._longest:
            raise Refusal(
                400,
                f"a prompt of {len(prompt)} tokens and max_tokens={sampling['max_tokens']} are more than "
                f"max_model_len={self._longest}",
            )
        self._open += 1
        try:
            output = (await self._draw(prompt, sampling)).outputs[0]
        finally:
            self._open -= 1
        if output.finish_reason not in ("stop", "length"):
            raise Refusal(503, f"the completion ended by {output.finish_reason}")
        ids = list(output.token_ids)
        chosen = [step[t].logprob for t, step in zip(ids, output.logprobs, strict=True)]
        return {
            "tokens": pack_ints(ids),
            "logprobs": pack_floats(chosen),
            "finish": output.finish_reason,
            "versions": [[int(s.version), s.end - s.start] for s in output.weight_versions or ()],
        }

    async def probe(self, body: Body) -> dict[str, Any]:
        """Score a prompt's tokens after the first."""
        prompt = self._prompt(body)
        steps = (await self._draw(prompt, probe_params())).prompt_logprobs
        scored = [step[t].logprob for t, step in zip(prompt[1:], steps[1:], strict=True)]
        return {"logprobs": pack_floats(scored)}

    async def join(self, body: Body) -> dict[str, Any]:
        """Connect all workers to a trainer's channel."""
        names = {"address": str, "port": int, "rank": int, "size": int, "timeout": float}
        await self._engine.collective_rpc("ecrl_join", args=tuple(_get(body, n, t) for n, t in names.items()))
        return {}

    async def receive(self, body: Body) -> dict[str, Any]:
        """Load the weights that the trainer sends; until they are accepted, nothing is drawn."""
        version = _get(body, "version", int)
        await self._engine.pause_generation(mode="keep", clear_cache=False)
        await self.forget()
        try:
            await self._engine.collective_rpc("ecrl_receive", args=(version,))
        except BaseException:
            await self._engine.resume_generation()  # what is drawn now is of no version
            raise
        return {}

    async def receipts(self, body: Body) -> dict[str, Any]:
        """Report the weights that each worker holds."""
        shapes = _get(body, "shapes", dict)
        if not all(isinstance(shape, list) and all(map(_is_int, shape)) for shape in shapes.values()):
            raise Refusal(400, "shapes must be lists of whole numbers, by name")
        return {"workers": await self._engine.collective_rpc("ecrl_receipt", args=(shapes,))}

    async def accept(self, body: Body) -> dict[str, Any]:
        """Draw on with the weights received, and mark later tokens with their version.

        The caches of older weights are emptied; what is open keeps its tokens, and reads them again.
        """
        version = _get(body, "version", int)
        if not await self._engine.reset_prefix_cache(reset_running_requests=True):
            raise RuntimeError("the prefix cache of older weights could not be emptied")
        await self._label(str(version))
        await self._engine.resume_generation()
        return {}

    async def forget(self) -> None:
        """Mark later completions as drawn with the weights of no run."""
        await self._label(LOADING)

    async def _label(self, version: str) -> None:
        self._version = LOADING
        await self._engine.update_weight_version(version)
        self._version = version

    def _prompt(self, body: Body) -> list[int]:
        try:
            prompt = unpack_ints(_get(body, "prompt", str))
        except ValueError:
            raise Refusal(400, "prompt must be token ids as int32 in base64") from None
        if not prompt or not all(0 <= token < self._vocabulary for token in prompt):
            raise Refusal(400, f"prompt must be token ids below {self._vocabulary}, at least one")
        return prompt

    async def _draw(self, prompt: list[int], sampling: Mapping[str, Any]) -> Any:
        from vllm import SamplingParams
        from vllm.exceptions import VLLMValidationError
        from vllm.sampling_params import RequestOutputKind

        try:
            params = SamplingParams(**sampling, output_kind=RequestOutputKind.FINAL_ONLY)
            generated = self._engine.generate(
                {"prompt_token_ids": prompt}, params, secrets.token_hex(16), lora_request=self._adapter
            )
            async for output in generated:
                last = output
        except (ValueError, VLLMValidationError) as error:  # vLLM's own check of the request
            raise Refusal(400, str(error).splitlines()[0]) from None
        return last


def _get(body: Body, name: str, kind: type[T]) -> T:
    """Return a field of a request.

    Raises:
        Refusal: it is missing, or of another type.
    """
    value = body.get(name)
    if kind is float and _is_int(value):
        value = float(value)  # type: ignore[arg-type]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Refusal(400, f"{name} must be {kind.__name__}")
    return value


def _sampling(given: Mapping[str, Any]) -> dict[str, Any]:
    """Check sampling parameters.

    Raises:
        Refusal: one is unknown, or of a wrong type; or the limit of tokens is missing.
    """
    for name, value in given.items():
        kinds = _SAMPLING.get(name, ())
        right = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
        if isinstance(value, list):
            right = right and all(map(_is_int, value))
        if not right or (isinstance(value, float) and not math.isfinite(value)):
            raise Refusal(400, f"sampling.{name} is unknown or not of its type")
    if given.get("max_tokens", 0) < 1:
        raise Refusal(400, "sampling.max_tokens must be at least 1")
    return dict(given)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
