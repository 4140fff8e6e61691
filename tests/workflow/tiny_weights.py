"""A model small enough to make in a test: a random Llama of two layers over single characters."""

from __future__ import annotations

import string
from pathlib import Path


def make_weights(folder: Path) -> str:
    """Saves the model and its tokenizer into a folder, and returns that as a SPEC."""
    import torch
    import transformers
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    folder.mkdir(exist_ok=True)
    vocabulary = {t: i for i, t in enumerate(["<bos>", "<eos>", *string.printable])}
    letters = Tokenizer(models.WordLevel(vocabulary, unk_token="."))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    letters.decoder = decoders.Fuse()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=letters, bos_token="<bos>", eos_token="<eos>")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=8192, initializer_range=0.4, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)
