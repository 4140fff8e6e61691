"""TRL's trainers, fed with the tokens that the search prompts with and nothing else.

Left to itself TRL would tokenise the text of a row as a whole and put an end-of-text token behind it. The search
tokenises segment by segment, draws answers that end where a choice ends, and stops free turns at a line break: a
model tuned on other tokens would not drop into the same place. So rows come tokenised, and what TRL is told is final.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from search.models.embedded import go_offline

go_offline()

import datasets  # noqa: E402
import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
import trl  # noqa: E402
from trl.trainer import utils as trl_utils  # noqa: E402

from evaluation.supervision.fine_tune_checkpoints import FOLDER, seal  # noqa: E402
from evaluation.supervision.fine_tune_settings import TuneSettings, TuneWatcher  # noqa: E402
from evaluation.supervision.row_nesting import Taught, nested  # noqa: E402

Ids = tuple[int, ...]
TokenRow = Mapping[str, tuple[float, ...]]
"""Tokens by the part of the row that they spell; of a value model also places and targets."""
IGNORED = -100  # the label of a token that no loss counts
WARM_UP = 0.05  # share of the steps over which the learning rate rises
SHORT = 20  # up to so many steps it does not rise: the first would be one at rate 0


class StoppedError(Exception):
    """Training must not go on: found before anything bad reached the weights.

    Attributes:
        step: steps done before it.
        hint: what to do.
    """

    def __init__(self, what: str, step: int, hint: str) -> None:
        super().__init__(what)
        self.step, self.hint = step, hint


class NotFiniteError(StoppedError):
    """A loss, a gradient or a weight that is no number."""

    def __init__(self, what: str, step: int) -> None:
        super().__init__(f"{what} was no number", step, "take a lower --lr, or look for rows unlike the others")


class Quiet:
    """A trainer of TRL that sends nothing, writes no card of its own and stops before a bad number is learned."""

    state: Any

    def _send_telemetry(self) -> None:
        return

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Does nothing: the tuning writes a card of its own."""

    def training_step(self, *args: Any, **more: Any) -> Any:
        """Computes loss and gradients of one batch.

        Raises:
            NotFiniteError: the loss is no number.
        """
        loss = super().training_step(*args, **more)  # type: ignore[misc]
        if not math.isfinite(float(loss)):
            raise NotFiniteError("the loss", self.state.global_step)
        return loss


class SftTrainer(Quiet, trl.SFTTrainer):  # type: ignore[misc]
    """Supervised tuning on rows of `input_ids` and `labels`."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Returns the mean negative log-likelihood of the completions' tokens: TRL's `nll`, computed where it counts.

        Where there is no Triton, TRL sends every position through the output layer: a third of a step where a prompt of
        hundreds of tokens has an answer of five. Here only places that spell a completion in some row go through it.
        """
        if inputs["input_ids"].is_cuda:  # there TRL does the same, in tiles that never hold all logits
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"][:, 1:]
        places = (labels != IGNORED).any(dim=0).nonzero().squeeze(1)
        passed = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        logits = model(**passed, use_cache=False, logits_to_keep=places).logits.float()
        spelled = labels[:, places]
        total = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), spelled.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        loss = total / ((spelled != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)
        return (loss, {"loss": loss}) if return_outputs else loss


@contextmanager
def needed_places() -> Iterator[None]:
    """Has TRL send through the output layer only places that spell a completion, as it does where there is Triton.

    Elsewhere it sends all of them, since some devices would compile anew for every number of places; a processor does
    not compile. The numbers are the same.
    """
    stock = trl_utils._use_triton
    trl_utils._use_triton = lambda device: True
    try:
        yield
    finally:
        trl_utils._use_triton = stock


class Sparing(Quiet):
    """A trainer of TRL that computes no likelihood which its loss does not count."""

    def compute_loss(self, *args: Any, **more: Any) -> Any:
        """Returns TRL's loss."""
        with needed_places():
            return super().compute_loss(*args, **more)  # type: ignore[misc]


class DpoTrainer(Sparing, trl.DPOTrainer):  # type: ignore[misc]
    """Preference tuning on rows of `prompt_ids`, `chosen_ids` and `rejected_ids`."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset  # tokenised already


class Watch(transformers.TrainerCallback):  # type: ignore[misc]
    """Tells a watcher how training goes, seals checkpoints, and stops at a number that is none."""

    def __init__(self, watcher: TuneWatcher) -> None:
        self._watcher = watcher

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Says how long it will take."""
        self._watcher.started(state.max_steps, state.global_step)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Looks at the gradients before they are used."""
        gradients = [p.grad for p in more["model"].parameters() if p.grad is not None]
        if not math.isfinite(sum(float(torch.linalg.vector_norm(g)) for g in gradients)):
            raise NotFiniteError("the gradient", state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Looks at the weights before they are kept."""
        weights = (p.detach() for p in more["model"].parameters() if p.requires_grad)
        if not all(map(_bearable, weights)):
            raise NotFiniteError("a weight", state.global_step - 1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        """Passes on a loss; that of the tuning rows comes before the state is kept."""
        if logs and "loss" in logs:
            self._watcher.step(state.global_step, float(logs["loss"]))
        elif logs and "eval_loss" in logs:
            loss = float(logs["eval_loss"])
            if not math.isfinite(loss):
                raise NotFiniteError("the tuning loss", state.global_step - 1)
            self._watcher.evaluated(state.global_step, loss)

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Seals the checkpoint, whose files are all written by now."""
        seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def _bearable(weights: torch.Tensor) -> bool:
    """Says whether weights are finite, and their products too: those of an adapter are multiplied with each other."""
    return math.isfinite(float(weights.float().square().sum()))


def sft_rows(sequences: Sequence[Taught]) -> Any:
    """Returns sequences as `SftTrainer` wants them: the loss counts what is taught alone."""
    labels = []
    for sequence in sequences:
        kept = {i for begin, end in sequence.spans for i in range(begin, end)}
        labels.append([token if i in kept else IGNORED for i, token in enumerate(sequence.ids)])
    return datasets.Dataset.from_dict({"input_ids": [list(s.ids) for s in sequences], "labels": labels})


def dpo_rows(rows: Sequence[TokenRow]) -> Any:
    """Returns rows as `DpoTrainer` wants them."""
    parts = ("prompt", "chosen", "rejected")
    return datasets.Dataset.from_dict({f"{part}_ids": [list(row[part]) for row in rows] for part in parts})


def prepared(method: str, rows: Sequence[TokenRow]) -> Any:
    """Returns tokenised rows as the trainer of a method wants them."""
    return sft_rows(nested(cast("Sequence[Mapping[str, Ids]]", rows))) if method == "sft" else dpo_rows(rows)


def adapter_config(settings: TuneSettings) -> Any:
    """Returns PEFT's configuration of the adapter; None where all weights are tuned."""
    if settings.full:
        return None
    return peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def arguments(settings: TuneSettings, out: Path, rows: int, *, dtype: torch.dtype, evaluate: bool) -> dict[str, Any]:
    """Returns what both trainers are told.

    Args:
        settings: of the tuning.
        out: the output folder.
        rows: rows to learn from.
        dtype: of the passes through the model.
        evaluate: whether there are tuning rows.
    """
    steps, every = settings.schedule(rows)
    rising = math.ceil(WARM_UP * steps) if steps > SHORT else 0
    return {
        "output_dir": str(out / FOLDER),
        "num_train_epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": rising,
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.accumulate,
        "activation_checkpointing": False,  # small models: time is scarcer than memory
        "max_length": None,  # rows are measured before; nothing is cut
        "seed": settings.seed,
        "data_seed": settings.seed,
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
        "use_cpu": settings.device == "cpu" or not torch.cuda.device_count(),
        "dataloader_pin_memory": False,
        "eval_strategy": "steps" if evaluate else "no",
        "eval_steps": every,
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": 3,
        "load_best_model_at_end": evaluate,
        "metric_for_best_model": "eval_loss" if evaluate else None,
        "greater_is_better": False if evaluate else None,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": [],
    }


def one_by_one(common: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a trainer is told, with steps of the same rows made of passes over one row each.

    What a pass keeps for its gradients grows with its rows and is most of what a training takes. On a processor one
    row fills the cores, and passes are added up to the gradient of the whole batch; a GPU wants the batch.
    """
    if not common["use_cpu"]:
        return dict(common)
    passes = common["per_device_train_batch_size"] * common["gradient_accumulation_steps"]
    return {
        **common,
        "per_device_train_batch_size": 1,
        "per_device_eval_batch_size": 1,
        "gradient_accumulation_steps": passes,
    }


def build_trainer(
    settings: TuneSettings,
    out: Path,
    model: Any,
    tokenizer: Any,
    train: Sequence[TokenRow],
    tuning: Sequence[TokenRow],
    *,
    dtype: torch.dtype,
    watcher: TuneWatcher,
    reference: Any = None,
) -> Any:
    """Returns the trainer of a method, ready to train.

    Args:
        settings: of the tuning.
        out: the output folder.
        model: the base; of an adapter its weights stay as they are.
        tokenizer: its tokenizer; it pads and does nothing else.
        train, tuning: tokenised rows.
        dtype: of the passes through the model.
        watcher: who is told how it goes.
        reference: the model that DPO compares with, where all weights are tuned.
    """
    sets = [prepared(settings.method, rows) for rows in (train, tuning)]
    common = arguments(settings, out, len(sets[0]), dtype=dtype, evaluate=bool(tuning))
    parts: dict[str, Any] = {
        "model": model,
        "processing_class": tokenizer,
        "train_dataset": sets[0],
        "eval_dataset": sets[1] if tuning else None,
        "peft_config": adapter_config(settings),
    }
    if settings.method == "sft":
        order = "group_by_length" if settings.by_length else "random"
        config = trl.SFTConfig(**common, train_sampling_strategy=order)
        make = SftTrainer
    else:
        config = trl.DPOConfig(**one_by_one(common), beta=settings.beta)
        make, parts["ref_model"] = DpoTrainer, reference
    trainer = make(args=one_gpu(config), **parts)
    if dtype != torch.float32:
        leave_casts_to_autocast(trainer.model)
    return watched(stopping_early(trainer, settings) if tuning else trainer, watcher)


def leave_casts_to_autocast(model: Any) -> None:
    """Keeps the layers of an adapter from casting what they read to fp32, which autocast would cast back at once.

    Nothing is computed otherwise; a step on a processor is shorter by a tenth and more.
    """
    for layer in model.modules():
        if isinstance(layer, peft.tuners.tuners_utils.BaseTunerLayer):
            layer.cast_input_dtype_enabled = False


def one_gpu(config: Any) -> Any:
    """Returns a configuration for one process on one GPU: a small model gains nothing from more."""
    config._n_gpu = min(config.n_gpu, 1)
    return config


def stopping_early(trainer: Any, settings: TuneSettings) -> Any:
    """Returns a trainer that ends when the tuning rows get no better, unless patience has no end."""
    if settings.patience:
        trainer.add_callback(transformers.EarlyStoppingCallback(early_stopping_patience=settings.patience))
    return trainer


def watched(trainer: Any, watcher: TuneWatcher) -> Any:
    """Returns a trainer that tells a watcher, not stdout, how it goes."""
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.add_callback(Watch(watcher))
    return trainer


def save_adapter(model: Any, folder: Path, *, base: str, revision: str, dtype: str) -> None:
    """Writes an adapter as the search reads it: sorted, so that equal adapters are equal files.

    Args:
        model: PEFT's model.
        folder: where to.
        base, revision: of the model it belongs on.
        dtype: `fp32` or `bf16`.
    """
    import json

    from safetensors.torch import save_file

    from search.models.adapters import CONFIG, WEIGHTS

    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    state = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file({name: state[name].detach().to("cpu", kind).contiguous() for name in sorted(state)}, folder / WEIGHTS)
    config = model.peft_config["default"].to_dict()
    config |= {"base_model_name_or_path": base, "revision": revision, "inference_mode": True}
    plain = {name: sorted(value) if isinstance(value, set) else value for name, value in sorted(config.items())}
    (folder / CONFIG).write_text(json.dumps(plain, indent=2, default=str) + "\n", encoding="utf-8")
