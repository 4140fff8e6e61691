import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import openai._base_client
import pytest
from openai_fake import Abilities, FakeServer

from clinical_data.errors import ModelError, UsageError
from search.models.language_model import GenerateRequest, Sampling, Segment
from search.models.openai_client import ServerClient, ServerRefused, parse_server
from search.models.openai_compatible import OpenAIModel
from search.models.registry import load_model

SECRET = "the patient's name"
REQUEST = GenerateRequest((Segment(SECRET),), Sampling(), 1)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)


@pytest.fixture
def fake():
    with FakeServer() as server:
        yield server


@pytest.fixture
def load(fake):
    loaded = []

    def open_model(**options):
        loaded.append(load_model(fake.spec, **options))
        fake.requests.clear()
        return loaded[-1]

    yield open_model
    for model in loaded:
        model.release()


@pytest.mark.parametrize(
    ("spec", "url", "model"),
    [
        ("openai:tiny@http://127.0.0.1:8000", "http://127.0.0.1:8000/v1", "tiny"),
        ("openai:tiny@http://localhost/v1/", "http://localhost/v1", "tiny"),
        ("openai:org/m@v2:q4@http://[::1]:80/api", "http://[::1]:80/api", "org/m@v2:q4"),
        ("openai:tiny@https://127.8.9.1:1/v1", "https://127.8.9.1:1/v1", "tiny"),
    ],
)
def test_a_spec_names_model_and_address(spec, url, model):
    server = parse_server(spec)
    assert (server.url, server.model, server.spec, server.loopback) == (url, model, spec, True)


@pytest.mark.parametrize(
    "spec",
    ["openai:tiny", "openai:tiny@ftp://127.0.0.1", "openai:@http://127.0.0.1", "openai:tiny@http://127.0.0.1:port",
     "openai:tiny@http://me:word@127.0.0.1", "openai:tiny@http://127.0.0.1?key=1", "openai:tiny@http://"],
)  # fmt: skip
def test_a_spec_of_another_form_is_a_usage_error(spec):
    with pytest.raises(UsageError):
        load_model(spec)


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "0.0.0.0", "example.org", "127.0.0.1.example.org", "localhost.example.org"]
)
def test_other_hosts_must_be_named(host):
    with pytest.raises(UsageError) as caught:
        parse_server(f"openai:tiny@http://{host}:8000")
    assert "allowed_hosts" in caught.value.hint
    assert not parse_server(f"openai:tiny@https://{host}:8000", [host.upper()]).loopback


def test_an_unencrypted_line_to_another_host_is_told(caplog):
    parse_server("openai:tiny@http://ward.example:8000", ["ward.example"])
    assert "unencrypted" in caplog.text


@pytest.mark.parametrize("fault", [500, 503, 429, "reset"])
def test_a_failed_request_is_sent_again(fake, load, fault):
    model = load(retries=2)
    fake.faults[:] = [fault, fault]
    (sample,) = model.generate([REQUEST])
    assert sample.text
    assert len(fake.requests) == 3


@pytest.mark.parametrize(
    ("faults", "words"),
    [([500] * 3, "status 500"), ([400], "status 400"), ([404], "status 404"), (["reset"] * 3, "no connection"),
     (["garbage"], "no JSON"), (["empty"], "none of the completions"), (["redirect"], "status 307")],
)  # fmt: skip
def test_errors_name_host_and_cause_and_never_the_prompt(fake, load, faults, words, caplog):
    caplog.set_level(logging.DEBUG)
    model = load(retries=2)
    fake.faults[:] = faults
    with pytest.raises(ModelError, match=words) as caught:
        model.generate([REQUEST])
    assert "127.0.0.1" in caught.value.message
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert SECRET not in caplog.text
    assert len(fake.requests) == len(faults)


@pytest.mark.parametrize("at", range(1, 12, 3))
def test_a_busy_server_is_not_taken_for_a_poor_one(fake, at):
    expected = OpenAIModel.load(fake.spec).identity
    fake.faults[:] = [0] * at + [503, 429]
    assert OpenAIModel.load(fake.spec).identity == expected


def test_a_request_without_answer_ends_with_its_timeout(fake, load):
    model = load(timeout=0.3, retries=1)
    fake.faults[:] = ["hang", "hang"]
    with pytest.raises(ModelError, match=r"within 0\.3 s"):
        model.generate([REQUEST])
    assert len(fake.requests) == 2


def test_the_first_error_of_a_batch_ends_the_others(fake, load):
    model = load(retries=0, concurrency=2)
    fake.faults[:] = [400]
    with pytest.raises(ServerRefused):
        model.generate([REQUEST] * 40)
    assert len(fake.requests) < 40


def test_no_more_requests_are_in_flight_than_permitted(fake, load):
    model = load(concurrency=3)
    fake.most_busy = 0
    fake.faults[:] = ["together"] * 3
    model.generate([REQUEST] * 30)
    assert fake.most_busy == 3


def test_no_server_is_a_model_error_at_loading(fake):
    spec = fake.spec
    fake.__exit__()
    try:
        with pytest.raises(ModelError, match="no connection to 127"):
            load_model(spec, retries=0)
    finally:
        fake.__enter__()


def test_only_our_own_key_is_sent_and_nothing_of_the_environment(fake, load, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "foreign")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Foreign: foreign")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.2:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.2:9")
    load()
    names = {name for headers in fake.headers for name in headers}
    assert "foreign" not in str(fake.headers)
    assert names <= {"host", "connection", "content-type", "content-length", "accept", "accept-encoding"}
    monkeypatch.setenv("WARDSTAR_API_KEY", "ours")
    fake.able.key = "ours"
    model = load()
    assert "ours" not in repr(model.identity)
    assert fake.headers[-1]["authorization"] == "Bearer ours"


def test_a_missing_key_is_named(fake):
    fake.able.key = "ours"
    with pytest.raises(ModelError) as caught:
        load_model(fake.spec)
    assert "WARDSTAR_API_KEY" in caught.value.hint


def test_release_ends_the_thread_and_a_later_call_starts_it_again(fake, load):
    def threads():
        return [t for t in threading.enumerate() if t.name == "wardstar-server"]

    model = load()
    assert not threads()
    first = model.generate([REQUEST])
    assert len(threads()) == 1
    model.release()
    assert not threads()
    assert model.generate([REQUEST]) == first


def test_calls_from_several_threads_and_inside_a_running_loop(fake, load):
    model = load()
    expected = model.generate([REQUEST])
    found = []
    workers = [threading.Thread(target=lambda: found.append(model.generate([REQUEST]))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    async def inside():
        return model.generate([REQUEST])

    assert [*found, asyncio.run(inside())] == [expected] * 5


INTERRUPTED = """
import sys, threading
from search.models.language_model import GenerateRequest, Sampling, Segment
from search.models.registry import load_model
model = load_model(sys.argv[1])
print("ready", flush=True)
try:
    model.generate([GenerateRequest((Segment("a"),), Sampling(), i) for i in range(20)])
except KeyboardInterrupt:
    print(f"interrupted, {threading.active_count()} thread", flush=True)
"""


def test_an_interrupt_ends_at_once_and_leaves_no_thread(fake):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, fake.spec], stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
        fake.requests.clear()
        fake.faults[:] = ["hang"] * 40
        while not fake.requests:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted, 1 thread\n"
        assert process.wait(timeout=60) == 0


@pytest.mark.parametrize("options", [{"timeout": 0}, {"retries": -1}, {"concurrency": 0}])
def test_options_out_of_range(options):
    with pytest.raises(UsageError):
        ServerClient(parse_server("openai:tiny@http://127.0.0.1:1"), **options)


def test_a_server_that_refuses_all_extras_is_asked_without(fake):
    fake.able = Abilities(strict=True, dialect="", ids="", bias=False)
    model = OpenAIModel.load(fake.spec)
    assert model.identity.extra["sampling_rules"] == "server's own"
    fake.requests.clear()
    model.generate([REQUEST])
    model.release()
    assert set(fake.requests[0]) <= {
        "model", "prompt", "max_tokens", "temperature", "top_p", "seed", "stop", "logprobs"
    }  # fmt: skip
