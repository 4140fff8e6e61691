"""Fine-tuning: from a training set to a folder that `--generator` and `--peer` accept.

What is trained on is exactly what the search prompts with, token by token: nothing is put before, between or after the
texts of a row. An answer ends where a choice ends; a free turn that should learn to stop has its line break in the row.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clinical_data.errors import BadInputError, ModelError, StorageError, UsageError, WardstarError
from evaluation.supervision.cards import CARD, VOCABULARIES, read_card
from evaluation.supervision.fine_tune_checkpoints import (
    FOLDER,
    check_plan,
    last_good,
    leave_plan,
    open_plan,
    same_plan,
    write_json,
)
from evaluation.supervision.fine_tune_settings import SilentWatcher, TuneSettings, TuneWatcher
from evaluation.supervision.tuning_output import COMPLETE, carried_files, carry_files, write_outputs
from evaluation.supervision.tuning_rows import (
    TuningRow,
    TuningSet,
    check_scheme,
    check_versions,
    disputed,
    patients_of,
    read_set,
    versions_of,
    with_base,
)
from search.models.adapters import NAMED, folder_of
from search.models.embedded import go_offline
from search.models.tokenising import bos_ids, ids_text, text_ids

go_offline()

import torch  # noqa: E402
import transformers  # noqa: E402

from evaluation.supervision.fine_tune_trainers import (  # noqa: E402
    StoppedError,
    TokenRow,
    build_trainer,
    save_adapter,
)
from search.models.local_weights import choose_device, choose_dtype, find_weights, load_weights  # noqa: E402
from search.prompt_pieces import prompt_pieces  # noqa: E402
from search.prompts import TEMPLATE_HASH  # noqa: E402

ATTENTION = "sdpa"
UNTUNED = "untuned.json"
SOFTWARE = ("torch", "transformers", "trl", "peft", "datasets")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokenised rows.

    Attributes:
        rows: part of a row -> its tokens.
        too_long: rows left out.
        retokenised: rows whose own tokens do not spell their text under this tokenizer, made from the text instead.
    """

    rows: Sequence[TokenRow]
    too_long: int = 0
    retokenised: int = 0


def fine_tune(
    data: Path,
    out: Path,
    settings: TuneSettings,
    *,
    resume: bool = False,
    watcher: TuneWatcher | None = None,
    kind: type[Tuning] | None = None,
) -> dict[str, Any]:
    """Tunes a model and writes it to a folder.

    Args:
        data: folder of the training set.
        out: folder to make.
        settings: how to tune.
        resume: go on with a training in `out` that was stopped.
        watcher: who is told how it goes.
        kind: what does the work; None: `Tuning`.

    Returns:
        The card, as `card.json` holds it.

    Raises:
        UsageError: options that cannot be, or an output folder that is taken.
        BadInputError: a training set that cannot be learned from, or a damaged checkpoint.
        ModelError: the base cannot be loaded, or training failed; what was good before is kept.
        StorageError: the output cannot be written.
    """
    watcher = watcher or SilentWatcher()
    device = choose_device(settings.device)
    if device.index:
        raise UsageError(f"--device {settings.device}: training takes the first GPU", hint="set CUDA_VISIBLE_DEVICES")
    rows = read_set(data, settings.method, settings.target)
    found = find_weights(settings.base)
    check_versions({"prompts": TEMPLATE_HASH}, rows.versions, what="this program", file=data / CARD)
    base_card = read_card(folder_of(settings.base) / CARD)
    check_scheme(base_card, rows, name=found.name)
    base_versions = versions_of(base_card)
    check_versions(base_versions, rows.versions, what=f"the base {found.name} was tuned on", file=data / CARD)
    layout = {"rows": "nested"} if settings.method == "sft" else {}  # steps of one layout are none of another
    plan = {
        "settings": settings_from(out, settings),
        "data": {**rows.hashes, **layout},
        "base": {"revision": found.revision},
        "versions": {**base_versions, **rows.versions},
    }
    if (finished := read_card(out / CARD)).get("status") == COMPLETE and resume:
        data_then, base_then = finished.get("data") or {}, finished.get("base") or {}
        then = {"data": {**(data_then.get("sha256") or {}), **layout}, "base": {"revision": base_then.get("revision")}}
        same_plan(out, plan, {**finished, **then})
        watcher.remark(f"{out} is finished already")
        return finished
    check_plan(out, plan, resume=resume)
    if settings.method == "sft" and (prompts := disputed(rows.train)):
        watcher.remark(f"{prompts} prompts have several answers, of cases that read alike: all are taught")
    tuning = (kind or Tuning)(rows, out, settings, watcher, device, plan["versions"])
    open_plan(out, plan, resume=resume)  # nothing that could be refused may leave a folder in the way of the next try
    try:
        return tuning.run()
    except WardstarError:
        leave_plan(out)
        raise


class Tuning:
    """One tuning at work."""

    looks_at_tuning = True  # training may end when the tuning rows get worse

    def __init__(
        self,
        data: TuningSet,
        out: Path,
        settings: TuneSettings,
        watcher: TuneWatcher,
        device: torch.device,
        versions: Mapping[str, str],
    ) -> None:
        self._data, self._out, self._settings, self._watcher = data, out, settings, watcher
        self._versions = versions
        self._patients = with_base(patients_of(data), read_card(folder_of(settings.base) / CARD))
        transformers.utils.logging.set_verbosity_error()
        dtype = "fp32" if settings.full else settings.dtype
        self._model, self._tokenizer, self._base = load_weights(settings.base, dtype, ATTENTION, str(device))
        self._reference = load_weights(settings.base, dtype, ATTENTION, str(device))[0] if self._compares else None
        self._model.requires_grad_(settings.full)
        self._passes = choose_dtype(settings.dtype, device)
        self._train = self._tokenise(data.train)
        self._tuning = self._tokenise(data.tuning) if self.looks_at_tuning else Tokens(())
        if not self._train.rows:
            raise BadInputError(f"no row is at most {settings.max_length} tokens long", file=data.folder)

    @property
    def _compares(self) -> bool:
        """DPO over all weights needs a second model to compare with; an adapter is switched off instead."""
        return self._settings.full and self._settings.method == "dpo"

    def _tokenise(self, rows: Sequence[TuningRow]) -> Tokens:
        tokens = tokenise(rows, self._tokenizer, self._settings.max_length)
        if tokens.too_long:
            most = self._settings.max_length
            self._watcher.remark(f"{tokens.too_long} of {len(rows)} rows are longer than {most} tokens: left out")
        if tokens.retokenised:
            self._watcher.remark(
                f"{tokens.retokenised} of {len(rows)} rows carry tokens of another tokenizer: made from their text"
            )
        return tokens

    def run(self) -> dict[str, Any]:
        """Trains, and writes what came of it."""
        began = time.monotonic()
        checkpoint = last_good(self._out / FOLDER, self._watcher.remark)
        with _translated(self._base.name):
            trainer = self._trainer()
        try:
            with _translated(self._base.name):
                first = [self._untuned(trainer)] if self._tuning.rows else []
                transformers.set_seed(self._settings.seed)  # a look at the tuning rows draws numbers, or was left out
                trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        except StoppedError as error:
            raise self._stopped(trainer, error, time.monotonic() - began) from error
        history = [*first, *_losses(trainer)]
        card = self._write(trainer, COMPLETE, time.monotonic() - began, history)
        for text in card["remarks"]:
            self._watcher.remark(text)
        shutil.rmtree(self._out / FOLDER, ignore_errors=True)
        return card

    def _untuned(self, trainer: Any) -> dict[str, Any]:
        """Returns the loss of the tuning rows under the base, measured once and kept for a training that is stopped."""
        path = self._out / FOLDER / UNTUNED
        if not (known := read_card(path)):
            known = {"step": 0, "epoch": 0.0, "eval_loss": trainer.evaluate()["eval_loss"]}
            write_json(path, known)
        return known

    def _trainer(self) -> Any:
        return build_trainer(
            self._settings,
            self._out,
            self._model,
            self._tokenizer,
            self._train.rows,
            self._tuning.rows,
            dtype=self._passes,
            watcher=self._watcher,
            reference=self._reference,
        )

    def _stopped(self, trainer: Any, error: StoppedError, seconds: float) -> ModelError:
        """Writes the last good state there is, and returns the error to raise."""
        what, hint = f"{error} at step {error.step + 1}", error.hint
        good = last_good(self._out / FOLDER, self._watcher.remark)
        if good is None:
            return ModelError(f"training stopped: {what}, before the first checkpoint", hint=hint)
        trainer.state.best_model_checkpoint = trainer.state.best_model_checkpoint or str(good)
        trainer._load_best_model()
        kept = Path(trainer.state.best_model_checkpoint).name.rpartition("-")[2]
        history = _losses(trainer)
        self._write(trainer, f"stopped: {what}; the state after step {kept} is kept", seconds, history)
        return ModelError(f"training stopped: {what}; the state after step {kept} is kept in {self._out}", hint=hint)

    def _write(self, trainer: Any, status: str, seconds: float, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Writes weights and card."""
        try:
            self._save_weights(trainer.model)
            carry_files(self._data.folder, self._out)
        except OSError as error:
            raise StorageError(f"{self._out}: cannot be written ({error.strerror})") from error
        card = self._card(trainer, status, seconds, history)
        write_outputs(self._out, card, history)
        return card

    def _save_weights(self, model: Any) -> None:
        settings = self._settings
        if settings.full:
            if settings.save_dtype == "bf16":
                model.to(torch.bfloat16)
            model.save_pretrained(self._out)
            self._tokenizer.save_pretrained(self._out)
        else:
            base, revision = base_from(self._out, settings.base), self._base.revision
            save_adapter(model, self._out, base=base, revision=revision, dtype=settings.save_dtype)

    def _card(self, trainer: Any, status: str, seconds: float, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        settings, data = self._settings, self._data
        losses = [row["loss"] for row in history if "loss" in row]
        looks = [row["eval_loss"] for row in history if "eval_loss" in row]
        parameters = list(trainer.model.parameters())
        return {
            "name": f"{settings.method} on {self._base.name}",
            "status": status,
            "settings": settings_from(self._out, settings),
            "base": {
                "spec": base_from(self._out, settings.base),
                "name": self._base.name,
                "revision": self._base.revision,
            },
            "data": {
                "folder": data.folder.resolve().name,
                "sha256": dict(data.hashes),
                "rows": len(self._train.rows),
                "sequences": len(trainer.train_dataset),
                "tuning_rows": len(self._tuning.rows),
                "too_long": self._train.too_long + self._tuning.too_long,
                "retokenised": self._train.retokenised + self._tuning.retokenised,
            },
            "patients": self._patients,
            "vocabularies": [f"{VOCABULARIES}/{path.name}" for path in carried_files(data.folder)],
            "versions": dict(self._versions),
            "figures": {
                "steps": trainer.state.global_step,
                "epochs": trainer.state.epoch,
                "first loss": losses[0] if losses else None,
                "last loss": losses[-1] if losses else None,
                "tuning loss untuned": looks[0] if looks else None,
                "tuning loss": trainer.state.best_metric,
                "seconds": round(seconds, 1),
                "parameters": sum(p.numel() for p in parameters),
                "trainable": sum(p.numel() for p in parameters if p.requires_grad),
            },
            "remarks": _remarks(looks[0] if looks else None, trainer.state.best_metric),
            "software": {name: version(name) for name in SOFTWARE},
            "machine": {
                "python": platform.python_version(),
                "device": self._base.device,
                "dtype": str(self._passes).removeprefix("torch."),
                **self._base.extra,
            },
        }


def _remarks(untuned: float | None, best: float | None) -> list[str]:
    """Returns what a person should know of the loss of the tuning rows before and after."""
    if untuned is None or best is None or best <= untuned:
        return []
    return [f"the best loss of the tuning rows, {best:.4g}, is above that of the untuned model, {untuned:.4g}"]


def base_from(folder: Path, spec: str) -> str:
    """Returns a base as `folder` may name it: a local folder by the way to it from there."""
    if spec.partition(":")[0] in NAMED:
        return spec
    return os.path.relpath(Path(spec).resolve(), folder.resolve())


def settings_from(folder: Path, settings: TuneSettings) -> dict[str, Any]:
    """Returns settings as `folder` keeps them: no path of this machine goes with the weights."""
    return {**settings.row(), "base": base_from(folder, settings.base)}


def tokenise(rows: Sequence[TuningRow], tokenizer: Any, max_length: int) -> Tokens:
    """Returns the tokens of rows as the search has them.

    A row that carries tokens keeps them if they spell its text. Otherwise the prompt is cut into the pieces that the
    search tokenises one by one, after the token that it puts before them, and a completion is a piece of its own, as a
    choice is scored, its line break another.
    """
    bos, limit = bos_ids(tokenizer), len(tokenizer)
    found: list[TokenRow] = []
    counts: Counter[str] = Counter()
    for row in rows:
        parts: dict[str, tuple[int, ...]] = {}
        for name, text in row.texts.items():
            prompt = name == "prompt"
            before = bos if prompt else ()
            own = row.ids.get(name)
            if own is not None and _spell(own, before, text, tokenizer, limit):
                parts[name] = own
            else:
                pieces = [s.text for s in prompt_pieces(text)] if prompt else _completion_pieces(text)
                parts[name] = before + tuple(i for piece in pieces for i in text_ids(tokenizer, piece))
                counts["retokenised"] += own is not None and prompt
        if sum(map(len, parts.values())) - _shorter(parts) > max_length:
            counts["too_long"] += 1
        else:
            found.append(parts)
    return Tokens(found, counts["too_long"], counts["retokenised"])


def _completion_pieces(text: str) -> list[str]:
    """Returns a completion and the line break that ends it."""
    body = text.removesuffix("\n")
    return [piece for piece in (body, text[len(body) :]) if piece]


def _shorter(parts: TokenRow) -> int:
    """Returns the length of the shorter of two completions, which stand in sequences of their own; 0 of one."""
    both = [len(ids) for name, ids in parts.items() if name != "prompt"]
    return min(both) if len(both) > 1 else 0


def _spell(ids: Sequence[int], before: Sequence[int], text: str, tokenizer: Any, limit: int) -> bool:
    if not ids or min(ids) < 0 or max(ids) >= limit or list(ids[: len(before)]) != list(before):
        return False
    return ids_text(tokenizer, ids[len(before) :]) == text


def _losses(trainer: Any) -> list[dict[str, Any]]:
    """Returns what the trainer noted of its steps and its looks at the tuning rows, those before a stop included."""
    rows = [row for row in trainer.state.log_history if "loss" in row or "eval_loss" in row]
    return [row for row in rows if math.isfinite(row.get("loss", row.get("eval_loss")))]


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """Turns what libraries raise into errors of ours, and keeps to itself what they warn each other of."""
    try:
        with warnings.catch_warnings():
            for kind in (FutureWarning, DeprecationWarning):
                warnings.simplefilter("ignore", kind)
            yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        hint = "take a smaller --batch-size and a larger --accumulate, or a smaller --max-length"
        raise ModelError(f"{name}: out of memory", hint=hint) from error
    except OSError as error:
        raise StorageError(f"a checkpoint cannot be written ({error.strerror or error})") from error
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
        if any(words in str(error) for words in ("PytorchStreamWriter", "No space left", "file write")):
            raise StorageError(f"a checkpoint cannot be written ({error})") from error
        raise ModelError(f"{name}: training failed: {error}") from error
