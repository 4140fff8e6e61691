"""Where the local back-end computes, and that nothing of it assumes to be beside the processor."""

import sys
from pathlib import Path

import pytest
import torch
from tiny_llama import make_tiny, prompt
from torch.overrides import TorchFunctionMode

import search.models
from clinical_data.errors import UsageError
from search.models.language_model import Constraint, GenerateRequest, Sampling, ScoreRequest
from search.models.local_weights import choose_device, choose_dtype
from search.models.transformers import TransformersModel

OURS = str(Path(search.models.__file__).parent)


@pytest.mark.parametrize(
    ("asked", "devices", "found"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda"),
        ("cpu", 2, "cpu"),
        ("cuda", 1, "cuda"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_the_device_is_the_one_asked_for(monkeypatch, asked, devices, found):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    assert choose_device(asked) == torch.device(found)


@pytest.mark.parametrize(("asked", "devices"), [("cuda", 0), ("cuda:1", 1), ("tpu", 1), ("", 0)])
def test_a_device_that_is_not_there_is_refused(monkeypatch, asked, devices):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    with pytest.raises(UsageError, match="no device") as caught:
        choose_device(asked)
    assert "cpu" in caught.value.hint


@pytest.mark.parametrize(("supported", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bf16_on_a_gpu_that_has_it(monkeypatch, supported, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: supported)
    assert choose_dtype("auto", torch.device("cuda")) == dtype


class Placeless(TorchFunctionMode):
    """Notes where our code makes a tensor without saying on which device."""

    FACTORIES = (torch.tensor, torch.empty, torch.zeros, torch.ones, torch.full, torch.arange, torch.eye, torch.rand)

    def __init__(self):
        super().__init__()
        self.placed, self.placeless = set(), set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        frame = sys._getframe(1)
        if func in self.FACTORIES and frame.f_code.co_filename.startswith(OURS):
            (self.placed if "device" in (kwargs or {}) else self.placeless).add(frame.f_code.co_name)
        return func(*args, **(kwargs or {}))


def test_tensors_are_made_on_the_device_of_the_model(tmp_path):
    model = TransformersModel.load(str(make_tiny(tmp_path)), dtype="fp32", device="cpu")
    assert model.identity.device == "cpu"
    sampling = Sampling(max_new_tokens=6, temperature=1.0, top_p=0.9)
    constraints = (None, Constraint(("pain", "rest"), most=2))
    with Placeless() as factories:
        model.generate([GenerateRequest(prompt("the p"), sampling, i, constraints[i % 2]) for i in range(8)])
        model.score([ScoreRequest(prompt("the p"), ("fever", "pain"))])
    assert {"_forward", "_decode", "_draw_allowed", "_logprobs"} <= factories.placed
    # Noise is the same on every device; the mask of a tree is made row by row and moved in one piece.
    assert factories.placeless == {"uniform_noise", "ancestors"}
