"""A language model small enough to make and to take apart in a test."""

import string

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from search.models.language_model import Segment

LETTERS = string.ascii_lowercase + " .\n"
EOS = 1
TOKEN_BYTES = 384  # keys, values and last hidden state of one token in fp32


def prompt(*texts):
    return tuple(Segment(text) for text in texts)


def letter_ids(text):
    return tuple(2 + LETTERS.index(letter) for letter in text)


def stock_logits(stock, ids):
    """Logits of the next token by stock transformers, float64."""
    with torch.inference_mode():
        return stock(torch.tensor([ids])).logits[0, -1].double()


def stock_logprob(stock, prompt_ids, choice_ids):
    """ln p of one choice, on its own."""
    with torch.inference_mode():
        logprobs = stock(torch.tensor([[*prompt_ids, *choice_ids]])).logits[0].log_softmax(-1)
    return sum(float(logprobs[len(prompt_ids) + i - 1, t]) for i, t in enumerate(choice_ids))


def make_tiny(folder, *, bos=False, seed=0, **config):
    """Saves a random two-layer Llama with grouped-query heads and a tokenizer of single letters."""
    vocabulary = {t: i for i, t in enumerate(["<bos>", "<eos>", *LETTERS])}
    letters = Tokenizer(models.WordLevel(vocabulary, unk_token="."))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    letters.decoder = decoders.Fuse()
    if bos:
        letters.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=letters, bos_token="<bos>", eos_token="<eos>")
    fast.save_pretrained(folder)
    settings = {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "initializer_range": 0.4,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    torch.manual_seed(seed)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**(settings | config))).save_pretrained(folder)
    return folder
