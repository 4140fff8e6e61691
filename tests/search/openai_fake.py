"""A local server with a completions endpoint and a tiny language model, and switches for what it lacks or breaks.

Its tokens are words with their space. ln p of a word is a matter of the word and of the last words before it, so that
likelihoods can be computed by hand with `logprob`.
"""

from __future__ import annotations

import json
import math
import random
import re
import threading
import time
import zlib
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import permutations
from typing import Any

WORDS = (" fever", " pneumonia", " sepsis", " heart", " failure", " likely", " zebra", " quartz", ".", "\n")
END = ""  # the token that ends a text


def tokens_of(text: str) -> list[str]:
    return re.findall(r"\n| ?[^\s.;]+|[.;]|\s", text)


def token_id(token: str) -> int:
    return zlib.crc32(token.encode()) % 100_000


def logprob(before: str, token: str) -> float:
    """ln p of any text as a token; over WORDS it sums to 1."""
    weights = {w: _weight(before, w) for w in WORDS}
    return math.log(_weight(before, token) / sum(weights.values()))


def _weight(before: str, token: str) -> float:
    rare = 3.0 if token in (" zebra", " quartz") else 0.0
    return math.exp(zlib.crc32(f"{before[-12:]}|{token}".encode()) % 1000 / 250 - rare)


@dataclass
class Abilities:
    """Switches of the fake."""

    seed: bool = True
    many: bool = True
    logprobs: bool = True
    echo: bool = True
    shifted_echo: bool = False  # gives each token the ln p of the next one
    bias: bool = True
    masked: bool = False  # reports ln p after the bias
    dialect: str = "structured_outputs"
    tokenise: str = "prompt"  # or content, input, or nothing
    bos: bool = False  # the tokeniser puts a token before every text
    ids: str = "asked"  # or content, or nothing
    strict: bool = False  # refuses parameters that it does not know
    usage: bool = True
    key: str = ""


@dataclass
class FakeServer:
    """The server.

    `faults` are taken one by one: 0 (none), a status, `hang`, `reset`, `garbage`, `empty`, `redirect`, or `together`
    (answers when three requests are in flight).
    """

    able: Abilities = field(default_factory=Abilities)
    faults: list[int | str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    tokenised: dict[int, str] = field(default_factory=dict)  # tokens that were asked for, by id
    busy: int = 0
    most_busy: int = 0

    def __enter__(self) -> FakeServer:
        fake = self
        self.three = threading.Barrier(3)

        class Handler(_Handler):
            server_state = fake

        self._lock = threading.Lock()
        self._http = _Quiet(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def spec(self) -> str:
        return f"openai:tiny@http://127.0.0.1:{self._http.server_port}"

    def enter(self, change: int) -> None:
        with self._lock:
            self.busy += change
            self.most_busy = max(self.most_busy, self.busy)

    def next_fault(self) -> int | str | None:
        with self._lock:
            return self.faults.pop(0) if self.faults else None

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        able = self.able
        known = {"model", "prompt", "max_tokens", "temperature", "top_p", "seed", "stop", "n", "logprobs", "echo"}
        if able.strict and set(body) - known:
            raise ValueError("unknown parameter")
        if body.get("echo") and not able.echo:
            raise ValueError("no echo")
        count = body.get("n", 1) if able.many else 1
        made = [self.sample(body, i) for i in range(count)]
        answer: dict[str, Any] = {"id": "1", "object": "text_completion", "created": 1, "model": "tiny"}
        answer["choices"] = [self.choice(body, i, *m) for i, m in enumerate(made)]
        if able.usage:
            prompt = len(tokens_of(body["prompt"]))
            sampled = sum(len(tokens) for tokens, _, _ in made)
            answer["usage"] = {"prompt_tokens": prompt, "completion_tokens": sampled, "total_tokens": prompt + sampled}
            answer["usage"]["prompt_tokens_details"] = {"cached_tokens": prompt // 2}
        return answer

    def sample(self, body: dict[str, Any], index: int) -> tuple[list[str], list[float], str]:
        """Returns tokens, their ln p and why they end; the token with the stop string is the last one."""
        able, prompt = self.able, body["prompt"]
        drawn = random.Random(f"{body.get('seed')}|{index}|{prompt}" if able.seed else None)
        stops, most = body.get("stop") or [], body["max_tokens"]
        if (pattern := self.pattern(body)) is not None:
            ways = [w for w in self.ways(pattern) if re.fullmatch(pattern, w)]
            text = drawn.choice(ways) if body["temperature"] else ways[0]
            tokens = tokens_of(text)[:most]
            return tokens, _logprobs(prompt, tokens), "stop"
        if able.bias and body.get("logit_bias"):
            (wanted,) = body["logit_bias"]
            token = self.tokenised[int(wanted)]
            return [token], [0.0 if able.masked else logprob(prompt, token)], "length"
        tokens, text = [], prompt
        while len(tokens) < most:
            weights = [_weight(text, w) for w in WORDS]
            at = drawn.choices(range(len(WORDS)), weights)[0] if body["temperature"] else weights.index(max(weights))
            tokens.append(WORDS[at])
            text += WORDS[at]
            if any(s in WORDS[at] for s in stops):
                return tokens, _logprobs(prompt, tokens), "stop"
        return tokens, _logprobs(prompt, tokens), "length"

    def pattern(self, body: dict[str, Any]) -> str | None:
        """Returns the regular expression that a constraint of the server's dialect amounts to."""
        value = body.get(self.able.dialect) if self.able.dialect else None
        if value is None or self.able.dialect != "grammar":
            return value["regex"] if isinstance(value, dict) else value
        rules = dict(re.split(r" ::= ", line) for line in value.splitlines())
        parts = re.findall(r'"(?:[^"\\]|\\.)*"|\w+|[()|?]', rules["root"].replace("choice", f"( {rules['choice']} )"))
        return "".join(f"(?:{re.escape(json.loads(p))})" if p[0] == '"' else p for p in parts)

    def ways(self, pattern: str) -> list[str]:
        """Returns what may fit a pattern: its first alternatives, and pairs of them."""
        plain = re.sub(r"\\(.)", r"\1", pattern).replace("(?:", "(")
        choices = [w for w in re.split(r"[()|]", plain) if w.strip() and w not in ("?", ";", "n")]
        choices = [w for w in dict.fromkeys(choices) if re.fullmatch(r" [\w ]+", w)]
        return choices + [";".join(pair) for pair in permutations(choices, 2)]

    def choice(
        self, body: dict[str, Any], i: int, tokens: list[str], logprobs: list[float], why: str
    ) -> dict[str, Any]:
        able, text = self.able, "".join(tokens)
        for stop in body.get("stop") or []:
            text = text.split(stop)[0]
        given: list[float | None] = list(logprobs)
        if body.get("echo"):
            before = tokens_of(body["prompt"])
            given = [None, *_logprobs(before[0], before[1:]), *logprobs]
            if able.shifted_echo:
                given = [*given[1:], -9.0]
            tokens, text = [*before, *tokens], body["prompt"] + text
        out: dict[str, Any] = {"text": text, "index": i, "finish_reason": why, "logprobs": None}
        if not (able.logprobs and body.get("logprobs")):
            return out
        if able.ids == "content":
            entries = zip(tokens, given, strict=True)
            out["logprobs"] = {"content": [{"token": t, "logprob": p, "id": token_id(t)} for t, p in entries]}
        else:
            out["logprobs"] = {"tokens": tokens, "token_logprobs": given}
        if able.ids == "asked" and body.get("return_token_ids"):
            out["token_ids"] = [token_id(t) for t in tokens]
        return out


def _logprobs(before: str, tokens: list[str]) -> list[float]:
    found = []
    for token in tokens:
        found.append(logprob(before, token))
        before += token
    return found


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hangs up in the middle is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server_state: FakeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self.reply(200, {"data": [{"id": "tiny", "owned_by": "fake", "root": "tiny-1"}]})
        else:
            self.reply(200, {"version": "9"}) if self.path == "/version" else self.reply(404, {})

    def do_POST(self) -> None:
        fake = self.server_state
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if fake.able.key and self.headers.get("authorization") != f"Bearer {fake.able.key}":
            return self.reply(401, {"error": "key"})
        fake.headers.append({name.lower(): value for name, value in self.headers.items()})
        if self.path != "/v1/completions":
            return self.tokenise(body)
        fake.requests.append(body)
        fake.enter(1)
        try:
            self.complete(body)
        finally:
            fake.enter(-1)

    def complete(self, body: dict[str, Any]) -> None:
        fault = self.server_state.next_fault()
        if fault == "hang":
            time.sleep(30)
        elif fault == "together":
            self.server_state.three.wait(10)
            self.reply(200, self.server_state.complete(body))
        elif fault == "reset":
            self.send_response(200)
            self.send_header("content-length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices": [')
            self.close_connection = True
        elif fault == "redirect":
            self.reply(307, {}, location="http://127.0.0.2:9/v1/completions")
        elif fault == "garbage":
            self.reply(200, None)
        elif fault == "empty":
            self.reply(200, {"choices": []})
        elif isinstance(fault, int) and fault:
            self.reply(fault, {"error": {"message": f"cannot take {body['prompt']}"}})
        else:
            try:
                self.reply(200, self.server_state.complete(body))
            except ValueError as error:
                self.reply(400, {"error": {"message": str(error)}})

    def tokenise(self, body: dict[str, Any]) -> None:
        name = self.server_state.able.tokenise
        path = "/extras/tokenize" if name == "input" else "/tokenize"
        if not name or self.path != path or name not in body:
            return self.reply(404, {"error": "no"})
        found = {token_id(t): t for t in tokens_of(body[name])}
        self.server_state.tokenised |= found
        before = [1] if self.server_state.able.bos else []
        return self.reply(200, {"tokens": before + [token_id(t) for t in tokens_of(body[name])]})

    def reply(self, status: int, value: object, **headers: str) -> None:
        raw = b'{"choices": [' if value is None else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"content-type": "application/json", "content-length": str(len(raw)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(raw)
