"""The tokenizer of the learned models: bytes, and one token per fixed phrase of the tasks.

Any text can be encoded as bytes; the tasks' prompts are short, digits between phrases.
"""

import json
from pathlib import Path
from typing import Any

SPECIAL = ("<end>", "<pad>")
END, PAD = range(2)
_ORDERS = ("in ascending order", "in descending order", "reversed")
PHRASES = (
    "Compute ",
    " + ",
    " - ",
    " * ",
    ". End with `#### ` and the number.\n",
    "#### ",
    "Write ",
    ", ",
    *(f" {order} as one JSON list and nothing else.\n" for order in _ORDERS),
)
SIZE = len(SPECIAL) + 256 + len(PHRASES)


def tokenizer() -> Any:
    """The tokenizer, a `tokenizers.Tokenizer`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: number for number, word in enumerate((*SPECIAL, *letters))}
    made = Tokenizer(models.BPE(words, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(SPECIAL))
    made.add_tokens([AddedToken(phrase, normalized=False) for phrase in PHRASES])
    return made


def write(folder: Path) -> None:
    """Write the two tokenizer files that vLLM reads into the model's folder."""
    tokenizer().save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": SPECIAL[END],
        "pad_token": SPECIAL[PAD],
        "model_max_length": 4096,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
