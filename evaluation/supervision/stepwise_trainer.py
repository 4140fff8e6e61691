"""A value model: says at the end of each turn of a trajectory how likely it ends well.

TRL has no trainer for that. Base and LoRA adapter are those of every other tuning; a head of one number reads the last
hidden state at the last token of each turn, and learns the turn's value by cross-entropy. The search reads the same
state in the same place (`search.models.value_head`).

Source: outcome and process judges, Lightman et al. 2023 (arXiv 2305.20050), section 2.6; soft labels by rollouts, Wang
et al. 2023, Math-Shepherd (arXiv 2312.08935), section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.supervision.fine_tune import Tokens, Tuning, fine_tune
from evaluation.supervision.fine_tune_settings import TuneSettings, TuneWatcher
from evaluation.supervision.tuning_rows import TuningRow
from search.models.embedded import go_offline
from search.models.tokenising import bos_ids, text_ids
from search.prompt_pieces import prompt_pieces, turn_pieces

go_offline()

import datasets  # noqa: E402
import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

from evaluation.supervision.fine_tune_trainers import (  # noqa: E402
    Quiet,
    TokenRow,
    adapter_config,
    arguments,
    one_gpu,
    stopping_early,
    watched,
)
from search.models.value_head import load_head, save_head  # noqa: E402

NOWHERE = -1.0  # target of a place that only fills a batch


def tokenise_turns(rows: Sequence[TuningRow], tokenizer: Any, max_length: int) -> Tokens:
    """Returns rows as the search tokenises them, with the place of the last token of each turn.

    Returns:
        `input_ids`, and for each turn its place `at` in them and its target in `targets`.
    """
    bos, left_out = bos_ids(tokenizer), 0
    found: list[TokenRow] = []
    for row in rows:
        ids = list(bos)
        for piece in prompt_pieces(row.texts["prompt"]):
            ids += text_ids(tokenizer, piece.text)
        at = []
        for turn in row.turns:
            for piece in turn_pieces(turn):
                ids += text_ids(tokenizer, piece.text)
            at.append(len(ids) - 1)
        if len(ids) > max_length:
            left_out += 1
        else:
            found.append({"input_ids": tuple(ids), "at": tuple(at), "targets": row.targets})
    return Tokens(found, left_out)


def collated(rows: Sequence[Mapping[str, Sequence[float]]], pad: int) -> dict[str, torch.Tensor]:
    """Returns a batch: rows of [B, tokens] and places of [B, turns], both filled up at the end."""
    tokens, turns = (max(len(row[part]) for row in rows) for part in ("input_ids", "at"))

    def filled(part: str, size: int, filler: float) -> list[list[float]]:
        return [[*row[part], *[filler] * (size - len(row[part]))] for row in rows]

    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    return {
        "input_ids": torch.tensor(filled("input_ids", tokens, pad), dtype=torch.long),
        "attention_mask": (torch.arange(tokens) < lengths[:, None]).long(),
        "at": torch.tensor(filled("at", turns, 0), dtype=torch.long),
        "targets": torch.tensor(filled("targets", turns, NOWHERE)),
    }


class ValueTrainer(Quiet, transformers.Trainer):  # type: ignore[misc]
    """Tunes PEFT's model and its head together; the head is the model's `value_head`."""

    model: Any

    def compute_loss(self, model: Any, inputs: Mapping[str, torch.Tensor], *_: Any, **__: Any) -> torch.Tensor:
        """Returns the cross-entropy of the turns, in nats: the mean over rows of each row's mean.

        So every trajectory counts alike, and a mean over batches is the mean over rows.
        """
        body = self.model.get_base_model().base_model
        with self.accelerator.autocast():
            hidden = body(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
            ).last_hidden_state  # [B, tokens, hidden_size]
        rows = torch.arange(len(hidden), device=hidden.device)[:, None]
        logits = self.model.value_head(hidden[rows, inputs["at"]].float())[..., 0]  # [B, turns]
        targets = inputs["targets"]
        counted = (targets != NOWHERE).float()
        losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return ((losses * counted).sum(1) / counted.sum(1)).mean()

    def prediction_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> tuple[torch.Tensor, None, None]:
        """Returns the loss of tuning rows."""
        with torch.no_grad():
            return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        write_head(self.model, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._read_head(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._read_head(self.state.best_model_checkpoint)

    def _read_head(self, folder: str) -> None:
        weight, bias = load_head(Path(folder))
        with torch.no_grad():
            self.model.value_head.weight.copy_(weight[None])
            self.model.value_head.bias.copy_(bias)


def write_head(model: Any, folder: Path) -> None:
    """Writes the head of PEFT's model beside its adapter."""
    save_head(model.value_head.weight[0], model.value_head.bias, folder)


def first_head(size: int, targets: Sequence[float]) -> torch.nn.Linear:
    """Returns a head that gives every turn the mean of the targets: what tuning is compared with.

    Args:
        size: of a hidden state.
        targets: of all turns to learn from, each trajectory counting alike.
    """
    head = torch.nn.Linear(size, 1)
    mean = min(max(sum(targets) / len(targets), 0.01), 0.99)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(math.log(mean / (1 - mean)))
    return head


class StepwiseTuning(Tuning):
    """One tuning of a value model at work."""

    def _tokenise(self, rows: Sequence[TuningRow]) -> Tokens:
        tokens = tokenise_turns(rows, self._tokenizer, self._settings.max_length)
        if tokens.too_long:
            most = self._settings.max_length
            self._watcher.remark(f"{tokens.too_long} of {len(rows)} rows are longer than {most} tokens: left out")
        return tokens

    def _trainer(self) -> Any:
        settings, train, tuning = self._settings, self._train.rows, self._tuning.rows
        transformers.set_seed(settings.seed)  # of the adapter's first weights
        model: Any = peft.get_peft_model(self._model, adapter_config(settings))
        means = [sum(row["targets"]) / len(row["targets"]) for row in train]
        model.value_head = first_head(self._model.config.get_text_config().hidden_size, means).to(self._model.device)
        common = arguments(settings, self._out, len(train), dtype=self._passes, evaluate=bool(tuning))
        del common["max_length"]
        config = transformers.TrainingArguments(
            **common, remove_unused_columns=False, train_sampling_strategy="group_by_length"
        )
        pad = self._tokenizer.pad_token_id or 0  # what fills a batch is masked
        trainer = ValueTrainer(
            model=model,
            args=one_gpu(config),
            processing_class=self._tokenizer,
            train_dataset=_dataset(train),
            eval_dataset=_dataset(tuning) if tuning else None,
            data_collator=lambda rows: collated(rows, pad),
        )
        return watched(stopping_early(trainer, settings) if tuning else trainer, self._watcher)

    def _save_weights(self, model: Any) -> None:
        super()._save_weights(model)
        write_head(model, self._out)


def _dataset(rows: Sequence[TokenRow]) -> Any:
    return datasets.Dataset.from_dict({part: [list(row[part]) for row in rows] for part in rows[0]})


def train_stepwise(
    data: Path, out: Path, settings: TuneSettings, *, resume: bool = False, watcher: TuneWatcher | None = None
) -> dict[str, Any]:
    """Tunes a value model and writes it to a folder that `--value model:FOLDER` takes; see `fine_tune`.

    Raises:
        UsageError, BadInputError, ModelError, StorageError: as there.
    """
    return fine_tune(data, out, settings, resume=resume, watcher=watcher, kind=StepwiseTuning)
