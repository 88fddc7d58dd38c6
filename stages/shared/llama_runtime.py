"""A GGUF file at work in llama.cpp: in this process (xllamacpp's build of its server), or in a server that runs.

Both are spoken to over the server's HTTP interface.
Interface: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from stages.shared.console import Pace, libraries_say, say, verbose

if TYPE_CHECKING:
    from xllamacpp import Server

_ERRORS, _INFO = 1, 3  # llama.cpp's log levels
_FORCED = 1e6  # a bias on a logit that nothing but a grammar outweighs


@dataclass(frozen=True)
class Answer:
    """What the model wrote.

    Attributes:
        text: the answer, without the token that ended it.
        finished: whether the model ended it, and not the limit on its length.
        tokens: how many it generated.

    """

    text: str
    finished: bool
    tokens: int


class Llama:
    """One GGUF file, loaded for the length of a `with` block.

    Args:
        file: the GGUF.
        slots: answers written at the same time.
        slot_context: tokens that one prompt and its answer may have together.
        endpoint: "embedded", or the address of a llama-server that was started with this file.

    Raises:
        SystemExit: on entering, if the file is missing, cannot be loaded, or its model holds less context; if no
            server answers at the endpoint, or one with another file or too small slots.

    """

    def __init__(self, file: Path, slots: int, slot_context: int, endpoint: str = "embedded") -> None:
        self._file, self._slots, self._slot_context, self._endpoint = file, slots, slot_context, endpoint
        self._server: Server | None = None

    def __enter__(self) -> "Llama":
        if self._endpoint == "embedded":
            self._start()
        else:
            self._find()
        return self

    def _find(self) -> None:
        start = f"llama-server -m {self._file} -np {self._slots} -c {self._slots * self._slot_context} --jinja"
        self._address = self._endpoint
        try:
            properties = self._ask("GET", "/props")
            name, room = Path(properties["model_path"]).name, properties["default_generation_settings"]["n_ctx"]
        except (OSError, HTTPException, ValueError, KeyError, RuntimeError) as error:
            raise SystemExit(
                f"params.yaml: evaluate.endpoint: no llama-server answers at {self._endpoint} "
                f"({type(error).__name__}). Start one: {start}"
            ) from None
        if name != self._file.name:
            raise SystemExit(
                f"params.yaml: evaluate.endpoint: {self._endpoint} has {name} loaded, to be measured is "
                f"{self._file.name}. Start it with that file: {start}"
            )
        if room < self._slot_context:
            raise SystemExit(
                f"params.yaml: evaluate.endpoint: {self._endpoint} holds {room} tokens a slot, the longest prompt and "
                f"evaluate.max_answer_tokens take {self._slot_context} together. Start it with more: {start}"
            )

    def _start(self) -> None:
        import xllamacpp

        if not self._file.is_file():
            raise SystemExit(f"{self._file}: not found. Run `dvc repro quantize_gguf`.")
        settings = xllamacpp.CommonParams()
        settings.model.path = str(self._file)
        settings.n_parallel = self._slots
        settings.n_ctx = self._slots * self._slot_context
        # More threads than cores to run them on, by taskset or a container's cpuset, would wait for one another.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = cores
        settings.cache_ram_mib = 0  # no prompt comes twice
        settings.warmup = False
        settings.verbosity = _INFO if verbose() else _ERRORS
        try:
            self._server = xllamacpp.Server(settings)
        except RuntimeError:
            raise SystemExit(
                f"{self._file}: llama.cpp cannot load it (its reason stands {libraries_say()}). "
                "Run `dvc repro -f quantize_gguf`."
            ) from None
        self._address = self._server.listening_address
        # Its main loop answers this one: stopped before that loop begins, xllamacpp 2026.10 waits for ever.
        self._ask("GET", "/slots")
        holds = self._ask("GET", "/v1/models")["data"][0]["meta"]["n_ctx_train"]
        if self._slot_context > holds:
            self._server = None
            raise SystemExit(
                f"{self._file}: its model holds {holds} tokens; the longest prompt and evaluate.max_answer_tokens "
                f"take {self._slot_context} together. Lower evaluate.max_answer_tokens in params.yaml."
            )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server = None  # its destructor stops the threads and frees the model

    def tokenize(self, text: str) -> list[int]:
        """llama.cpp's token ids of a text in which control tokens are control tokens."""
        body = {"content": text, "parse_special": True, "add_special": False}
        ids: list[int] = self._ask("POST", "/tokenize", body)["tokens"]
        return ids

    def apply_template(self, messages: list[dict[str, str]]) -> str:
        """The prompt for some messages by the chat template in the file, rendered by llama.cpp."""
        return str(self._ask("POST", "/apply-template", {"messages": messages})["prompt"])

    def answers(
        self, prompts: Sequence[list[int]], max_tokens: int, schema: dict[str, Any] | None, label: str
    ) -> list[Answer]:
        """Answer every prompt greedily, as many at a time as there are slots.

        All prompts go to llama.cpp in one request, which fills its slots in a fixed order. That matters: a batch
        of another make-up rounds differently, and now and then another token wins. Measured on 24 prompts with
        eight slots on a CPU: a newly loaded file repeats every text, the same file asked again changes 11, and
        one slot instead of eight changes 22. One slot makes an answer independent of all others.

        Args:
            prompts: token ids of each prompt.
            max_tokens: an answer ends there, unfinished.
            schema: JSON Schema that every answer is held to while it is written; None leaves the model free.
            label: what the progress lines begin with.

        Returns:
            the answers, in the order of the prompts.

        Raises:
            SystemExit: a schema that llama.cpp cannot turn into a grammar; a running server that breaks an answer off.

        """
        body: dict[str, Any] = {
            "prompt": list(prompts),
            "n_predict": max_tokens,
            "temperature": 0,
            "cache_prompt": False,
            "stream": True,
        }
        if schema is not None:
            self._check_grammar(schema)
            body["json_schema"] = schema
        try:
            return self._collect(self._send("POST", "/completion", body), len(prompts), label)
        except RuntimeError as error:
            if self._endpoint == "embedded":
                raise
            raise SystemExit(
                f"params.yaml: evaluate.endpoint: {self._endpoint} broke an answer off ({error}). Take a newer "
                "llama-server (some older ones fail at an answer that is no valid UTF-8), or embedded."
            ) from None

    def _collect(self, response: HTTPResponse, count: int, label: str) -> list[Answer]:
        """Put the streamed pieces of so many answers together."""
        pieces: list[list[str]] = [[] for _ in range(count)]
        written = [0] * count
        answers: dict[int, Answer] = {}
        started, pace = time.monotonic(), Pace()
        for event in _events(response):
            index = event["index"]
            pieces[index].append(event["content"])
            written[index] = event["tokens_predicted"]
            if event["stop"]:
                finished = event["stop_type"] == "eos"
                answers[index] = Answer("".join(pieces[index]), finished, written[index])
            if pace.due():
                seconds = time.monotonic() - started
                say(f"  {label}: {len(answers)}/{count} answers, {sum(written) / seconds:.0f} tokens/s")
        return [answers[index] for index in range(count)]

    def _check_grammar(self, schema: dict[str, Any]) -> None:
        """Refuse a schema that llama.cpp only complains about: it would go on without a grammar."""
        # No JSON begins with "}", so only a grammar can keep this bias from choosing it.
        brace = self.tokenize("}")[0]
        body = {
            "prompt": [brace],
            "n_predict": 1,
            "temperature": 0,
            "cache_prompt": False,
            "logit_bias": [[brace, _FORCED]],
            "json_schema": schema,
        }
        if self._ask("POST", "/completion", body)["content"] == "}":
            raise SystemExit(
                "data/epic.schema.json: $defs.output: llama.cpp cannot hold an answer to it (its reason stands "
                f"{libraries_say()}). Remove the keyword it names."
            )

    def _ask(self, verb: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return json.load(self._send(verb, path, body))

    def _send(self, verb: str, path: str, body: dict[str, Any] | None) -> HTTPResponse:
        # http.client and not urllib, which would send this through a proxy where one is configured.
        address = urlsplit(self._address)
        connection = (HTTPSConnection if address.scheme == "https" else HTTPConnection)(address.netloc)
        connection.request(verb, path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"llama.cpp: {path}: {response.read().decode(errors='replace')}")
        return response


def _events(response: HTTPResponse) -> Iterator[dict[str, Any]]:
    """The events of a streamed answer; `data: null` only says that a prompt is being read."""
    for line in response:
        name, _, text = line.partition(b": ")
        event = json.loads(text) if name in (b"data", b"error") else None
        if event and (name == b"error" or "error" in event):
            raise RuntimeError(f"llama.cpp: {text.decode()}")
        if event:
            yield event
