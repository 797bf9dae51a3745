"""A client of any OpenAI-compatible endpoint that sees pictures: vLLM, SGLang, llama.cpp, or somebody's service.

Pictures go as parts of one chat message. What passes (a timeout, a busy server, a torn answer) is tried again with growing
pauses; what is wrong for every question (no such model, no right) is raised at once instead of failing a million clips.
Captioners and judges ask through it; what an answer means is theirs to say.
"""

from __future__ import annotations

import base64
import io
import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anisora.errors import BadConfig, Failed
from anisora.settings import setting

#: Answers that say "later", and those that say the same for every clip.
_TRANSIENT_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_FATAL_STATUS = {
    401: "the API key is not accepted",
    403: "the API key has no right to this model",
    404: "no such endpoint or model",
}

#: The longest pause a server may ask for; beyond it the clip is left for the next run.
_LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """Where an endpoint is and how it is asked."""

    base_url: str = setting("http://127.0.0.1:8000/v1", "the address, up to and with /v1", metavar="URL")
    model: str = setting("", "the model's name there", metavar="NAME")
    api_key_env: str = setting("ANISORA_API_KEY", "the environment variable that holds the key, if one is needed")
    is_structured: bool = setting(True, "hold the server to the JSON schema; off for servers without response_format")
    in_flight: int = setting(8, "questions under way at once")
    timeout_s: float = setting(120.0, "how long one answer may take")
    tries: int = setting(4, "requests for one answer before the clip is left for the next run")
    pause_s: float = setting(1.0, "the first pause between tries; each further one is twice as long")
    max_tokens: int = setting(768, "the longest answer")
    temperature: float = setting(0.2, "0 gives the same answer again")
    jpeg_quality: int = setting(90, "of the frames on their way")

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise BadConfig("not an address", got=self.base_url, expected="http://... or https://...")
        if not self.model:
            raise BadConfig("no model named", expected="its name at the endpoint", hint="model: qwen2.5-vl-7b")
        for name in ("in_flight", "tries", "max_tokens", "timeout_s"):
            if getattr(self, name) <= 0:
                raise BadConfig(f"{name} of the endpoint", got=getattr(self, name), expected="above 0")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back: `text`, or a `reason` code with a `detail`. A transient failure may pass until another run.

    `usage` is what the server says that the answer cost, in tokens by kind; empty where it does not say.
    """

    text: str | None = None
    reason: str | None = None
    detail: str = ""
    is_transient: bool = False
    usage: Mapping[str, int] = field(default_factory=dict)


class Endpoint:
    """The connections to an endpoint. Use as a context manager, or `close` it."""

    def __init__(self, settings: EndpointSettings) -> None:
        import httpx2

        self.settings = settings
        key = os.environ.get(settings.api_key_env, "")
        self._client = httpx2.Client(
            timeout=settings.timeout_s,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx2.Limits(max_connections=settings.in_flight),
        )

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def ask(
        self,
        pictures: Sequence[str],
        words: str,
        *,
        code: str,
        schema: Mapping[str, Any] | None = None,
        attempt: int = 0,
    ) -> Answer:
        """The answer to pictures (`data_url`s) and words, a final no, or what was wrong when no try was left.

        `code` names the question in the server's log. `schema` is what the server is held to, where it can be. A further
        `attempt` gets another seed and more freedom. Raises BadConfig for an endpoint that would refuse every question.
        """
        body = self._body(pictures, words, schema, attempt)
        for number in range(1, self.settings.tries + 1):
            try:
                return self._once(code, body)
            except _Passing as problem:
                last = problem
            if number == self.settings.tries or last.retry_after_s > _LONGEST_PAUSE_S:
                break
            time.sleep(max(last.retry_after_s, self._pause_s(number)))
        return Answer(reason=last.reason, detail=last.detail, is_transient=True)

    def _pause_s(self, number: int) -> float:
        """Twice as long each time, spread a little so that many clips do not come back at once."""
        return min(_LONGEST_PAUSE_S, self.settings.pause_s * 2 ** (number - 1)) * random.uniform(0.75, 1.25)

    def _once(self, code: str, body: bytes) -> Answer:
        import httpx2

        url = self.settings.base_url.rstrip("/") + "/chat/completions"
        headers = {"Content-Type": "application/json", "X-Request-Id": code}
        try:
            response = self._client.post(url, content=body, headers=headers)
        except httpx2.TimeoutException as problem:
            raise _Passing("timeout", str(problem)) from problem
        except httpx2.HTTPError as problem:
            raise _Passing("unreachable", str(problem)) from problem
        status = response.status_code
        if status in _FATAL_STATUS:
            raise BadConfig(_FATAL_STATUS[status], got=f"{status} from {url}", expected=f"model {self.settings.model}",
                            hint=f"the key in {self.settings.api_key_env}" if status != 404 else "another model")  # fmt: skip
        if status in _TRANSIENT_STATUS:
            raise _Passing(f"http_{status}", response.text[:200], _seconds(response.headers.get("Retry-After")))
        if status >= 400:  # this clip's question was not understood: too many pictures, too long, filtered
            return Answer(reason=f"http_{status}", detail=response.text[:200])
        try:
            said = response.json()
            choice = said["choices"][0]
            message = choice["message"]
        except (ValueError, LookupError, TypeError) as problem:
            raise _Passing("torn_answer", response.text[:200]) from problem
        usage = _usage(said)
        if message.get("refusal") or choice.get("finish_reason") == "content_filter":
            detail = str(message.get("refusal") or "content_filter")
            return Answer(reason="refusal", detail=detail, usage=usage)
        text = message.get("content") or ""
        if isinstance(text, list):  # some servers answer in parts, as they are asked
            text = "".join(part.get("text", "") for part in text)
        return Answer(text=text, usage=usage) if text.strip() else Answer(reason="empty", usage=usage)

    def _body(self, pictures: Sequence[str], words: str, schema: Mapping[str, Any] | None, attempt: int) -> bytes:
        parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in pictures]
        body: dict[str, Any] = {
            "model": self.settings.model,
            "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": words}]}],
            "max_tokens": self.settings.max_tokens,
            "temperature": self.settings.temperature + 0.4 * attempt,
            "seed": attempt,
        }
        if schema is not None and self.settings.is_structured:
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return json.dumps(body).encode()


class _Passing(Failed):
    """A failure that another try may not meet, at the earliest after `retry_after_s`."""

    def __init__(self, reason: str, detail: str, retry_after_s: float = 0.0) -> None:
        super().__init__(reason, got=detail)
        self.reason, self.detail, self.retry_after_s = reason, detail, retry_after_s


def _seconds(retry_after: str | None) -> float:
    """The seconds of a Retry-After header; 0 for none, and for a date, which our own pauses will do for."""
    try:
        return max(0.0, float(retry_after or 0))
    except ValueError:
        return 0.0


def _usage(said: Any) -> dict[str, int]:
    """Tokens by kind, of those that the server counts."""
    usage = said.get("usage") if isinstance(said, dict) else None
    kinds = ("prompt_tokens", "completion_tokens")
    return {k: usage[k] for k in kinds if isinstance(usage.get(k), int)} if isinstance(usage, dict) else {}


def data_url(frame_HWC: NDArray[np.uint8], quality: int) -> str:
    """A picture as JPEG in the text of an address."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(frame_HWC).save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
