"""Continue prompts by examples/c, and compare the ids with those of `Generator`.

Of a small random Llama, and of SmolLM2 where its package is installed:

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
from sparsekit.bench.smollm import smollm_folder
from sparsekit.engine import Generator, compile_model

WORDS = 97
NEW_TOKENS = 24
SPARSITY = 0.5
PROMPTS = tuple(" ".join(f"w{i}" for i in ids) for ids in ([5], [3, 1, 4, 1, 5, 9, 2, 6], range(1, 41)))
#: Few tokens and in int8, which keeps it to seconds under qemu.
SMOLLM_PROMPT = "The capital of France is"
SMOLLM_TOKENS = 6
#: Settings of `Generator.generate`, and those of the program: with a seed both draw the same numbers.
GREEDY: tuple[dict[str, float], list[str]] = ({"temperature": 0}, [])
SETTINGS = (
    GREEDY,
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


def generated(program: list[str], model: Path, prompt: list[int], new_tokens: int, options: list[str]) -> list[int]:
    """What the program prints."""
    arguments = [str(model), *map(str, prompt), "--max-tokens", str(new_tokens), *options]
    printed = subprocess.run([*program, *arguments], check=True, stdout=subprocess.PIPE).stdout
    return [int(line) for line in printed.split()]


def compare(
    program: list[str],
    folder: Path,
    prompts: tuple[str, ...],
    new_tokens: int,
    settings: tuple[tuple[dict[str, float], list[str]], ...],
    **types: str,
) -> None:
    """Exit where the program writes other tokens than Python; one that ends a text is as any other to the program."""
    path = folder / "compiled.sparsekit"
    compile_model(folder, path, **types)
    generator = Generator(path, tokenizer=folder / "tokenizer.json")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    for sampling, options in settings:
        for prompt in prompts:
            ids = tokenizer.encode(prompt).ids
            (expected,) = generator.complete([prompt], max_new_tokens=new_tokens, **sampling)
            found = generated(program, path, ids, new_tokens, options)
            if not expected.tokens or found[: len(expected.tokens)] != expected.tokens:
                sys.exit(f"{sampling} after {ids}: expected {expected.tokens}, got {found}")
    print(f"{len(prompts) * len(settings)} texts of {new_tokens} tokens, as in Python")


def main(program: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        llama = Path(name) / "llama"
        write_llama(llama)
        compare(program, llama, PROMPTS, NEW_TOKENS, SETTINGS)
        try:
            smollm = smollm_folder(Path(name))
        except (FileNotFoundError, ModuleNotFoundError) as error:
            print(f"not run: SmolLM2; {error}")
            return
        compare(program, smollm, (SMOLLM_PROMPT,), SMOLLM_TOKENS, (GREEDY,), dtype="int8", embeddings="int8")


if __name__ == "__main__":
    main(sys.argv[1:])
