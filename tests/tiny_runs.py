"""Tiny inputs of recipes: reviews, random models, recipes."""

import json

import torch
import transformers

from sparsekit.bench.minilm import minilm_folder
from sparsekit.recipes import Recipe
from sparsekit.recipes.report import comparison

comparison._SECONDS = 0.0  # tests time nothing: as few rounds as there may be

WORDS = ["good", "bad", "fine", "awful", "great", "poor", "film", "story", "actor", "scene"]


def write_reviews(path, count=48):
    rows = []
    for i in range(count):
        mood = WORDS[i % 6]
        rows.append({"text": f"{mood} {WORDS[6 + i % 4]} {mood}", "label": "pos" if i % 2 == 0 else "neg"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tiny(folder, kind, **changes):
    """A small model at random beside MiniLM's tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_folder(), local_files_only=True)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64} | changes
    if kind == "mixture":
        config = transformers.MixtralConfig(
            vocab_size=len(tokenizer), num_key_value_heads=2, num_local_experts=2, num_experts_per_tok=1, **sizes
        )
        model = transformers.MixtralForCausalLM(config)
    elif kind == "language":
        config = transformers.LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **sizes)
        model = transformers.LlamaForCausalLM(config)
    else:
        config = transformers.BertConfig(vocab_size=len(tokenizer), id2label={0: "neg", 1: "pos"}, **sizes)
        classes = {"classification": transformers.BertForSequenceClassification, "embedding": transformers.BertModel}
        model = classes[kind](config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def recipe_of(task, *stages, **data):
    data = {"max_tokens": 12, "batch_size": 8, "test_part": 0.25} | data
    return Recipe.model_validate({"task": task, "data": data, "stages": list(stages)})
