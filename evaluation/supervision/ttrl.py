"""TTRL: a model learns from its own vote on cases without a label.

To each prompt a group of answers is drawn, as the search draws them: each is one of those that the prompt offers. The
answer that most of the group gave is taken for right, and rewarded; below a minimum share nothing is. Learning from
oneself can run away: when one answer is given to nearly everything, whatever the prompt, training stops.

Source: TTRL, arXiv 2504.16084, section 2; the group's rewards are compared as in GRPO, arXiv 2402.03300.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clinical_data.errors import BadInputError
from clinical_data.vocabulary import load_vocabulary
from evaluation.supervision.cards import VOCABULARIES
from evaluation.supervision.fine_tune import Tokens, Tuning, fine_tune
from evaluation.supervision.fine_tune_settings import TuneSettings, TuneWatcher
from evaluation.supervision.sft import END
from evaluation.supervision.tuning_rows import TuningRow
from search.models.choice_walk import ChoiceWalk, Menu, make_menu
from search.models.embedded import go_offline
from search.models.tokenising import bos_ids, text_ids
from search.prompt_pieces import prompt_pieces
from search.prompts import ANSWERS

go_offline()

import datasets  # noqa: E402
import torch  # noqa: E402
import trl  # noqa: E402

from evaluation.supervision.fine_tune_trainers import (  # noqa: E402
    Sparing,
    StoppedError,
    adapter_config,
    arguments,
    one_by_one,
    one_gpu,
    watched,
)

Ids = tuple[int, ...]
OFFER, OFFER_END = ANSWERS.strip().split("{answers}")  # "Possible answers: ", "."
WINDOW = 40  # groups looked at together for a collapse
COLLAPSED = 0.95  # share of all their answers that one answer may not reach


def offered(prompt: str) -> tuple[str, ...]:
    """Returns the answers that a prompt offers, as completions; empty where it names none."""
    for line in prompt.split("\n"):
        if line.startswith(OFFER):
            names = line.removeprefix(OFFER).removesuffix(OFFER_END).split("; ")
            return tuple(dict.fromkeys(f" {name}" for name in names))
    return ()


def carried(folder: Path) -> tuple[str, ...]:
    """Returns the answers of the vocabulary that a set carries, as completions; empty where it carries not just one."""
    files = sorted((folder / VOCABULARIES).glob("*.yaml"))
    return load_vocabulary(str(files[0])).choices if len(files) == 1 else ()


def majority(answers: Sequence[str], least_share: float) -> tuple[str | None, float]:
    """Returns the answer that most of a group gave, and its share; no answer below a share, or where two are equal."""
    counts = Counter(answers).most_common(2)
    share = counts[0][1] / len(answers)
    tied = len(counts) > 1 and counts[1][1] == counts[0][1]
    return (None if tied or share < least_share else counts[0][0]), share


def entropy(answers: Sequence[str]) -> float:
    """Returns the entropy of a group's answers, in nats: 0 where all are equal.

    Source: Shannon 1948, with the shares of the group as probabilities.
    """
    return -sum(n / len(answers) * math.log(n / len(answers)) for n in Counter(answers).values()) + 0.0


class Ballot:
    """The reward: 1 for the answer that is taken for right, else 0.

    Args:
        group: answers to one prompt, which stand next to each other.
        least_share: smallest share of a majority that is rewarded.
        prompts: distinct prompts there are; of one alone no collapse can be told.
    """

    __name__ = "majority"

    def __init__(self, group: int, least_share: float, prompts: int) -> None:
        self._group, self._least = group, least_share
        self._seen: deque[tuple[str, Sequence[str]]] = deque(maxlen=WINDOW)
        self._few = min(WINDOW, prompts)
        self._begun: set[str] = set()

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], label: Sequence[str], **more: Any
    ) -> list[float]:
        """Returns the reward of each completion.

        Raises:
            StoppedError: nearly all answers to many prompts are one and the same, which they were not at first.
        """
        rewards: list[float] = []
        for at in range(0, len(completions), self._group):
            answers = [completion.removesuffix(END) for completion in completions[at : at + self._group]]
            voted, share = majority(answers, self._least)
            right = label[at] or voted
            rewards += [float(answer == right) for answer in answers]
            more["log_metric"]("majority_ratio", share)
            more["log_metric"]("vote_entropy", entropy(answers))
            self._seen.append((prompts[at], answers))
            if len(self._begun) < 2:
                self._begun |= set(answers)
        self._stop_if_collapsed(more["trainer_state"].global_step)
        return rewards

    def _stop_if_collapsed(self, step: int) -> None:
        if self._few < 2 or len({prompt for prompt, _ in self._seen}) < self._few or len(self._begun) < 2:
            return
        answers = Counter(answer for _, group in self._seen for answer in group)
        share = answers.most_common(1)[0][1] / answers.total()
        if share >= COLLAPSED:
            what = f"one answer makes up {share:.0%} of those to {self._few} prompts (the vote has collapsed)"
            hint = "take a lower --lr, a higher --least-share, or --labels peer"
            raise StoppedError(what, step, hint)


class TtrlTrainer(Sparing, trl.GRPOTrainer):  # type: ignore[misc]
    """GRPO on prompts in the search's tokens, with answers drawn from those that each prompt offers."""

    menus: Mapping[Ids, Menu]
    tokens: Mapping[str, Ids]
    end: int

    def _tokenize_prompts(self, prompts: Sequence[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [list(self.tokens[prompt]) for prompt in prompts], None, {}

    def _generate_single_turn(self, prompt_ids: Sequence[Sequence[int]], *_: Any, **__: Any) -> tuple[Any, None]:
        """Draws one answer to each prompt, token by token, among those that it offers."""
        device, longest = self.accelerator.device, max(map(len, prompt_ids))
        pad = self._tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompt_ids], device=device)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompt_ids], device=device)
        menus = [self.menus[tuple(p)] for p in prompt_ids]

        def allowed(row: int, so_far: Any) -> list[int]:
            walk = ChoiceWalk(menus[row])
            for token in so_far[longest:].tolist():
                if token not in walk.tokens:  # it has ended
                    return [self.end]
                walk.take(token)
            return [*walk.tokens, self.end] if walk.complete else walk.tokens

        training = self.model.training
        self.model.eval()
        with torch.no_grad():
            drawn = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=self.generation_config,
                prefix_allowed_tokens_fn=allowed,
            )
        self.model.train(training)
        completions = [
            row[: row.index(self.end) + 1] if self.end in row else row for row in drawn[:, longest:].tolist()
        ]
        return completions, None


class TtrlTuning(Tuning):
    """One TTRL at work."""

    looks_at_tuning = False  # they have labels, and it has none

    def __init__(self, *parts: Any) -> None:
        self._menus: dict[Ids, Menu] = {}
        self._labels: dict[str, str] = {}
        self._labelled: dict[str, TuningRow] = {}
        self._prompts: dict[str, Ids] = {}
        super().__init__(*parts)

    def _tokenise(self, rows: Sequence[TuningRow]) -> Tokens:
        """Returns the distinct prompts that offer at least two answers."""
        bos, left_out, found = bos_ids(self._tokenizer), 0, self._prompts
        known = carried(self._data.folder)
        for row in rows:
            prompt, choices = row.texts["prompt"], offered(row.texts["prompt"]) or known
            if len(choices) < 2 or row.texts["turn"] not in ("", "answer"):
                continue
            self._note_label(row, choices)
            if prompt in found:
                continue
            ids = bos + tuple(i for s in prompt_pieces(prompt) for i in text_ids(self._tokenizer, s.text))
            tokens = [text_ids(self._tokenizer, choice) for choice in choices]
            if len(ids) + max(map(len, tokens)) + 1 > self._settings.max_length:
                left_out += 1
                continue
            found[prompt], self._menus[ids] = ids, make_menu(tokens, (), 1)
        if rows and not found and not left_out:
            raise BadInputError("no prompt that asks for one of several answers", file=rows[0].file)
        if rows and self._settings.labels == "peer" and found and not found.keys() & self._labels.keys():
            hint = "take --labels vote, or export a run whose peer verified answers"
            raise BadInputError("no answer of the set has the label source peer", file=rows[0].file, hint=hint)
        return Tokens([{"prompt": ids} for ids in found.values()], left_out)

    def _note_label(self, row: TuningRow, choices: Sequence[str]) -> None:
        """Notes the answer that a peer stood by, where it is to lead.

        Raises:
            BadInputError: the prompt does not offer it, or a peer stood by another one elsewhere.
        """
        prompt, label = row.texts["prompt"], row.texts["completion"].removesuffix(END)
        if self._settings.labels != "peer" or row.texts["label_source"] != "peer" or not label:
            return
        hint = "take the row away, or take --labels vote"
        if label not in choices:
            message = "the answer of the peer is none of those to choose from"
            raise BadInputError(message, file=row.file, line=row.line, field="completion", hint=hint)
        other = self._labelled.setdefault(prompt, row)
        if self._labels.setdefault(prompt, label) != label:
            message = f"another answer of the peer than that of {other.file.name}:{other.line} to the same prompt"
            raise BadInputError(message, file=row.file, line=row.line, field="completion", hint=hint)

    def _trainer(self) -> Any:
        settings, prompts = self._settings, self._prompts
        (end,) = text_ids(self._tokenizer, END)
        common = arguments(settings, self._out, len(prompts), dtype=self._passes, evaluate=False)
        del common["max_length"]
        common["per_device_train_batch_size"] = settings.group * min(settings.batch_size, len(prompts))
        config = trl.GRPOConfig(
            **one_by_one(common),  # the whole group is drawn at once all the same
            num_generations=settings.group,
            max_completion_length=max(menu.longest for menu in self._menus.values()) + 1,
            temperature=settings.temperature,
            generation_kwargs={"eos_token_id": end},
            beta=0.0,
        )
        trainer = TtrlTrainer(
            model=self._model,
            processing_class=self._tokenizer,
            args=one_gpu(config),
            reward_funcs=Ballot(settings.group, settings.least_share, len(prompts)),
            train_dataset=datasets.Dataset.from_list(
                [{"prompt": p, "label": self._labels.get(p, "")} for p in prompts]
            ),
            peft_config=adapter_config(settings),
        )
        trainer.menus, trainer.tokens, trainer.end = self._menus, prompts, end
        trainer.eos_token_ids = [end]
        return watched(trainer, self._watcher)


def train_ttrl(
    data: Path, out: Path, settings: TuneSettings, *, resume: bool = False, watcher: TuneWatcher | None = None
) -> dict[str, Any]:
    """Tunes a model by its own votes and writes it to a folder; see `fine_tune`.

    Raises:
        UsageError, BadInputError, StorageError: as there.
        ModelError: as there, or the vote has collapsed; what was good before is kept.
    """
    return fine_tune(data, out, settings, resume=resume, watcher=watcher, kind=TtrlTuning)
