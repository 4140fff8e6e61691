"""The served model against a real server: llama.cpp's Python server with the embedded model's own file.

Skipped where neither this interpreter nor the one named by WARDSTAR_TEST_LLAMA has `llama-cpp-python[server]`.
"""

import importlib.util
import math
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from conftest import VOCABULARY, make_problem

from clinical_data.errors import ModelError
from search.models.embedded import find_gguf, is_installed
from search.models.language_model import Constraint, GenerateRequest, Sampling, ScoreRequest, Segment
from search.models.registry import load_model
from search.problem import Models
from search.settings import SearchSettings
from search.strategies import run_search

pytestmark = pytest.mark.embedded

PROMPT = (Segment("The capital of France is"),)
CHOICES = (" Paris", " Lyon", " New York", " heart failure")


@pytest.fixture(scope="module")
def spec():
    """The SPEC of a running server."""
    python = os.environ.get("WARDSTAR_TEST_LLAMA", "")
    if not python and importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed, and WARDSTAR_TEST_LLAMA names no Python that has it")
    try:
        gguf = find_gguf()
    except ModelError as error:
        pytest.skip(error.message)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python or sys.executable, "-m", "llama_cpp.server", "--model", str(gguf), "--model_alias", "smollm2",
               "--host", "127.0.0.1", "--port", str(port), "--n_ctx", "2048", "--logits_all", "true"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await_answer(process, f"http://127.0.0.1:{port}/v1/models")
        yield f"openai:smollm2@http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _await_answer(process, url):
    for _ in range(600):
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url):
                return
        except OSError:
            if process.poll() is not None:
                pytest.skip("llama-cpp-python's server does not start here")
            time.sleep(0.2)
    pytest.fail("the server did not answer")


@pytest.fixture
def model(spec):
    found = load_model(spec)
    yield found
    found.release()


def test_the_probe_sees_through_a_real_server(model):
    extra = model.identity.extra
    assert model.repeatable
    # its echo reports the ln p of the next place (0.3.36) and must not be believed
    assert {"scoring": "stepwise", "constraint": "grammar", "n": "no", "prompt_ids": "server"}.items() <= extra.items()


def test_real_samples_repeat_and_keep_to_constraints(model):
    several = Constraint((" Lyon", " Nice", " Lille"), most=2)
    requests = [GenerateRequest(PROMPT, Sampling(8, 1.0, 1.0), seed) for seed in (1, 2, 1)]
    requests += [GenerateRequest(PROMPT, Sampling(12, 1.0), seed, several) for seed in (1, 2)]
    requests += [GenerateRequest(PROMPT, Sampling(4, 0.0), 1)]
    samples = model.generate(requests)
    assert samples[0] == samples[2] != samples[1]
    assert all(s.chosen for s in samples[3:5])
    assert samples[5].text.startswith(" Paris")
    assert all(math.isfinite(s.logprob) and s.logprob < 0 for s in samples)


def test_real_likelihoods_are_those_of_the_same_weights_read_locally(model):
    (served,) = model.score([ScoreRequest(PROMPT, CHOICES)])
    assert served.logprobs[0] == max(served.logprobs)
    if not is_installed():
        pytest.skip("the embedded model is not installed")
    local_model = load_model("embedded", dtype="fp32")
    (local,) = local_model.score([ScoreRequest(PROMPT, CHOICES)])
    assert served.choice_ids == local.choice_ids
    # llama.cpp rounds activations to eight bits
    assert served.logprobs == pytest.approx(local.logprobs, abs=1.0)


def test_a_real_server_serves_a_strategy(model):
    problem = make_problem(items=())
    result = run_search("full-information", problem, Models(model, model), SearchSettings(), 1)
    assert result.conclusion.answer_key in {e.code for e in VOCABULARY.entries}
    assert sum(h.probability for h in result.conclusion.ranked) == pytest.approx(1.0)
    assert model.work.scored > 0
