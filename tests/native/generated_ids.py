"""Continue prompts by examples/c, and compare the ids with those of `Generator`, of a small random Llama.

python tests/native/generated_ids.py qemu-aarch64 ... build/example/neon/generate
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import tokenizers
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sparsekit import finalize, prune
from sparsekit.engine import Generator, compile_model

WORDS = 97
NEW_TOKENS = 24
SPARSITY = 0.5
PROMPTS = ([5], [3, 1, 4, 1, 5, 9, 2, 6], [*range(1, 41)])
#: Settings of `Generator.generate`, and those of the program: with a seed both draw the same numbers.
SETTINGS: tuple[tuple[dict[str, float], list[str]], ...] = (
    ({"temperature": 0}, []),
    ({"temperature": 0.8, "top_k": 0, "seed": 11}, ["--temperature", "0.8", "--seed", "11"]),
)


def write_llama(folder: Path) -> None:
    """A pruned model, dense with zeros, in which no token ends a text; a word is a token."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        max_position_embeddings=128,
        initializer_range=0.3,  # far from uniform, so that rounding does not choose the tokens
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    prune(model, SPARSITY)
    finalize(model)
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text("{}")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"w{i}": i for i in range(WORDS)}, "w0"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({}))


def generated(program: list[str], model: Path, prompt: list[int], options: list[str]) -> list[int]:
    """What the program prints."""
    arguments = [str(model), *map(str, prompt), "--max-tokens", str(NEW_TOKENS), *options]
    return [
        int(line) for line in subprocess.run([*program, *arguments], check=True, stdout=subprocess.PIPE).stdout.split()
    ]


def main(program: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        write_llama(folder)
        path = Path(name) / "model.sparsekit"
        compile_model(folder, path)
        generator = Generator(path, tokenizer=folder / "tokenizer.json")
        for settings, options in SETTINGS:
            for prompt in PROMPTS:
                text = " ".join(f"w{token}" for token in prompt)
                (expected,) = generator.complete([text], max_new_tokens=NEW_TOKENS, **settings)
                found = generated(program, path, prompt, options)
                if len(found) != NEW_TOKENS or found != expected.tokens:
                    sys.exit(f"{settings} after {prompt}: expected {expected.tokens}, got {found}")
    print(f"{len(PROMPTS) * len(SETTINGS)} texts of {NEW_TOKENS} tokens, as in Python")


if __name__ == "__main__":
    main(sys.argv[1:])
