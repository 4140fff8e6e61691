"""Local language models through transformers, as the search sees them.

This file speaks the `LanguageModel` protocol: text to tokens and back, batches that fit into memory, errors. The passes
through the model are in `prefix_engine`, the attention they share in `shared_attention`, what they keep in `kv_cache`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any, TypeVar

from clinical_data.errors import ModelError, UsageError
from search.models.embedded import go_offline
from search.models.language_model import (
    ChoiceScores,
    Constraint,
    GenerateRequest,
    Generation,
    ModelIdentity,
    Prompt,
    ScoreRequest,
    Work,
)
from search.models.race import Race

go_offline()

import torch  # noqa: E402
import transformers  # noqa: E402

from search.models.choice_walk import Menu, make_menu  # noqa: E402
from search.models.kv_cache import Ids, shared_length  # noqa: E402
from search.models.local_weights import load_weights  # noqa: E402
from search.models.prefix_engine import SCORE_ROWS, Draft, PrefixEngine, Scoring, packs  # noqa: E402
from search.models.shared_attention import IMPLEMENTATION, shared_prefix_attention  # noqa: E402
from search.models.token_sampling import uniform_noise  # noqa: E402
from search.models.tokenising import bos_ids, ids_text, text_ids  # noqa: E402

logger = logging.getLogger(__name__)

transformers.AttentionInterface.register(IMPLEMENTATION, shared_prefix_attention)

# Largest difference allowed when a loaded model is compared with its own attention, as a share of the largest logit.
CHECK_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.01}

MAX_BATCH = 64
CACHE_MB = 2048.0

Job = TypeVar("Job", Draft, Scoring, Race)


class TransformersModel:
    """A `LanguageModel` on this machine. Use `load` to make one.

    Args:
        model: a causal language model whose attention is `IMPLEMENTATION`.
        tokenizer: its tokenizer.
        identity: what to call it.
        max_batch: most samples decoded together; halved when memory runs out.
        cache_mb: most memory, in megabytes (10^6 bytes), of the keys, values and last hidden states kept. Those of a
            running batch count too; only a single prompt that takes more exceeds it. A pass works on a copy of the
            keys and values that it reads.

    Raises:
        UsageError: no room for a batch or a negative amount of memory.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        identity: ModelIdentity,
        *,
        max_batch: int = MAX_BATCH,
        cache_mb: float = CACHE_MB,
    ) -> None:
        if max_batch < 1 or cache_mb < 0:
            raise UsageError("max_batch must be at least 1, cache_mb must not be negative")
        self._model, self._tokenizer, self._identity = model, tokenizer, identity
        self._engine = PrefixEngine(model, int(cache_mb * 1e6))
        self._max_batch = self._batch = max_batch
        self._vocabulary = model.get_input_embeddings().num_embeddings
        self._context = model.config.get_text_config().max_position_embeddings
        self._bos = bos_ids(tokenizer)
        self._eos = _eos_ids(model, tokenizer)
        self._lock = threading.Lock()
        self._tokenise = lru_cache(maxsize=4096)(self._tokenise_text)
        self._stop_ids = lru_cache(maxsize=64)(self._find_stop_ids)
        self._menu = lru_cache(maxsize=64)(self._make_menu)

    @classmethod
    def load(
        cls,
        spec: str,
        *,
        dtype: str = "auto",
        device: str = "auto",
        threads: int | None = None,
        max_batch: int = MAX_BATCH,
        cache_mb: float = CACHE_MB,
    ) -> TransformersModel:
        """Loads a model from this machine.

        Args:
            spec: `embedded`, a local folder, or `hf:ORG/NAME`.
            dtype: `auto` (bf16 where the device computes it faster), `fp32`, `bf16` or `fp16`.
            device: `auto` (a CUDA device if there is one, else the processor), `cpu`, `cuda` or `cuda:N`.
            threads: processor threads of torch, for the whole process; None leaves them as they are.
            max_batch: most samples decoded together.
            cache_mb: most memory, in megabytes, of what is kept of earlier prompts.

        Raises:
            UsageError: an unknown dtype, a device that is not there, or a number out of range.
            ModelError: the weights are missing, cannot be read, or need another kind of attention.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        model, tokenizer, identity = load_weights(spec, dtype, IMPLEMENTATION, device)
        loaded = cls(model, tokenizer, identity, max_batch=max_batch, cache_mb=cache_mb)
        loaded._check_architecture()
        return loaded

    def _check_architecture(self) -> None:
        config = self._model.config.get_text_config()
        # Caps only large logits, which a short comparison need not meet.
        if getattr(config, "final_logit_softcapping", None) is not None:
            raise ModelError(f"{self._identity.name} caps its logits, which this back-end does not")
        try:
            with torch.inference_mode():
                worst = self._engine.deviation(tuple(range(min(8, config.vocab_size))))
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ModelError(f"{self._identity.name} does not run with shared-prefix attention: {error}") from error
        if not worst < CHECK_TOLERANCE[self._model.dtype]:
            raise ModelError(f"{self._identity.name} needs an attention or a head that this back-end lacks")
        self._engine.work = Work()

    @property
    def identity(self) -> ModelIdentity:
        """Which model this is."""
        return self._identity

    @property
    def work(self) -> Work:
        """Running counters of the work really done."""
        return self._engine.work

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, for chat templates and token counts."""
        return self._tokenizer

    def release(self) -> None:
        """Forgets keys and values kept for earlier prompts."""
        with self._lock:
            self._engine.cache.clear()
            self._tokenise.cache_clear()
            self._menu.cache_clear()
            self._batch = self._max_batch

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Generation]:
        """Returns one sample per request, in order.

        Raises:
            ModelError: an empty or overlong prompt, or the back-end failed.
        """
        with self._lock:
            drafts = [self._draft(request) for request in requests]
            order = sorted((d for d in drafts if not d.finish), key=lambda d: d.prompt_ids)
            self._in_batches(order, self._engine.sample)
            return [self._generation(draft) for draft in drafts]

    def score(self, requests: Sequence[ScoreRequest]) -> list[ChoiceScores]:
        """Returns the likelihoods of the choices of each request, in order.

        Raises:
            ModelError: an empty or overlong prompt, or the back-end failed.
        """
        with self._lock:
            wanted = [(self.prompt_ids(r.prompt), tuple(map(self._tokenise, r.choices))) for r in requests]
            for prompt_ids, choices in wanted:
                self._check_length(len(prompt_ids), max(map(len, choices), default=0))
            tables = self._score_all([w for w, r in zip(wanted, requests, strict=True) if r.leaders is None])
            races = {i: Race(*wanted[i], r.leaders) for i, r in enumerate(requests) if r.leaders is not None}
            self._in_batches(sorted(races.values(), key=lambda race: race.prompt_ids), self._engine.lead)
            return [
                ChoiceScores(ids, choices, races[i].scores() if i in races else tuple(tables[ids][c] for c in choices))
                for i, (ids, choices) in enumerate(wanted)
            ]

    def _score_all(self, wanted: Sequence[tuple[Ids, tuple[Ids, ...]]]) -> dict[Ids, dict[Ids, float]]:
        """Returns ln p of all choices of some prompts, by prompt and choice."""
        tables: dict[Ids, dict[Ids, float]] = {}
        for prompt_ids, choices in wanted:
            tables.setdefault(prompt_ids, {}).update(dict.fromkeys(choices, 0.0))
        jobs = [
            Scoring(ids, dict.fromkeys(part, 0.0))
            for ids in sorted(tables)
            for part in packs(sorted(tables[ids]), len, SCORE_ROWS)
        ]
        self._in_batches(jobs, self._engine.score)
        for job in jobs:
            tables[job.prompt_ids].update(job.choices)
        return tables

    def prompt_ids(self, prompt: Prompt) -> Ids:
        """Returns the token ids of a prompt.

        Raises:
            ModelError: an empty prompt.
        """
        ids = list(self._bos)
        for segment in prompt:
            ids.extend(self._tokenise(segment.text) if segment.token_ids is None else segment.token_ids)
        if not ids:
            raise ModelError("an empty prompt")
        if not 0 <= min(ids) <= max(ids) < self._vocabulary:
            raise ModelError(f"a token outside the {self._identity.name} vocabulary of {self._vocabulary}")
        return tuple(ids)

    def choice_ids(self, choice: str) -> Ids:
        """Returns the token ids of a choice, as it is scored."""
        return self._tokenise(choice)

    # Requests and results

    def _draft(self, request: GenerateRequest) -> Draft:
        sampling, prompt_ids = request.sampling, self.prompt_ids(request.prompt)
        menu = None if request.constraint is None else self._menu(request.constraint)
        new = max(sampling.max_new_tokens, 0)
        if menu is not None:
            new = min(new, menu.longest)
        self._check_length(len(prompt_ids), new)
        stop_ids = self._eos | self._stop_ids(sampling.stop)
        return Draft(request, prompt_ids, stop_ids, uniform_noise(request.seed, new), new, menu)

    def _make_menu(self, constraint: Constraint) -> Menu:
        choices = [self._tokenise(choice) for choice in constraint.choices]
        return make_menu(choices, self._tokenise(constraint.separator), constraint.most)

    def _generation(self, draft: Draft) -> Generation:
        self._engine.work.sampled += len(draft.token_ids)
        token_ids = tuple(draft.token_ids)
        chosen = draft.walk.chosen if draft.walk is not None else ()
        text = self._decode_text(token_ids)
        return Generation(text, draft.prompt_ids, token_ids, draft.logprob, draft.finish, chosen)

    def _check_length(self, prompt: int, new: int) -> None:
        if prompt + new > self._context:
            raise ModelError(
                f"a prompt of {prompt} tokens and {new} new ones exceed the context of {self._context} tokens"
            )

    def _tokenise_text(self, text: str) -> Ids:
        return text_ids(self._tokenizer, text)

    def _decode_text(self, ids: Sequence[int]) -> str:
        return ids_text(self._tokenizer, ids)

    def _find_stop_ids(self, stop: tuple[str, ...]) -> frozenset[int]:
        """Returns the tokens whose own text contains a stop string."""
        if not stop:
            return frozenset()
        return frozenset(i for i, text in enumerate(self._token_texts) if any(s in text for s in stop))

    @cached_property
    def _token_texts(self) -> list[str]:
        return [self._decode_text([i]) for i in range(len(self._tokenizer))]

    # Batches

    def _in_batches(self, jobs: Sequence[Job], run: Callable[[Sequence[Job]], None]) -> None:
        """Runs jobs, sorted by prompt, in batches that fit; halves the batch when memory runs out."""
        engine, done = self._engine, 0
        while done < len(jobs):
            batch = jobs[done : done + self._batch_size(jobs[done:])]
            prefilled, kept = engine.work.prefilled, engine.cache.tokens
            engine.cache.tick()
            try:
                with torch.inference_mode():
                    engine.prefill([job.prompt_ids for job in batch])
                    run(batch)
            except (RuntimeError, MemoryError, IndexError) as error:
                self._after_failure(error, len(batch), kept)
            else:
                done += len(batch)
                prefilled = engine.work.prefilled - prefilled
                engine.work.reused += sum(len(job.prompt_ids) for job in batch) - prefilled
            finally:
                engine.cache.tick()
                engine.cache.trim()

    def _batch_size(self, jobs: Sequence[Job]) -> int:
        """Returns how many of the first jobs, at least one, stay within the batch and the cache."""
        tokens = 0
        before: Ids = ()
        for count, job in enumerate(jobs[: self._batch]):
            tokens += len(job.prompt_ids) - shared_length(before, job.prompt_ids) + job.new_tokens
            if count and tokens > self._engine.cache.limit:
                return count
            before = job.prompt_ids
        return min(len(jobs), self._batch)

    def _after_failure(self, error: Exception, batch: int, kept: int) -> None:
        """Makes room if memory ran out, so that the batch may be tried again; else raises `ModelError`.

        Args:
            error: what happened.
            batch: jobs in the batch.
            kept: tokens in the cache before it.
        """
        name = self._identity.name
        if not _is_out_of_memory(error):
            raise ModelError(f"{name} failed: {error}") from error
        if batch == 1 and not kept:
            raise ModelError(f"{name}: out of memory with a batch of one") from error
        self._batch = max(batch // 2, 1)  # until `release`: a later case-step must not depend on this one
        if batch == 1:
            self._engine.cache.clear()
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        logger.warning("%s: out of memory, batch of %d halved", name, batch)


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Returns every token that ends a text."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in (*ids, tokenizer.eos_token_id) if i is not None)


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or "out of memory" in text
        or "can't allocate memory" in text
    )
