"""Names of the files in a model folder."""

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
MANIFEST = "sparsekit.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
RECIPE = "recipe.yaml"
CARD = "README.md"
VERIFICATION = "verification.safetensors"
#: Written by sentence-transformers: what its models consist of.
SENTENCE_MODULES = "modules.json"
#: The same, beside the transformers model: how texts become tokens.
SENTENCE_OPTIONS = "sentence_bert_config.json"
#: The same, beside modules.json: prompts, and what a reranker applies to its logit.
SENTENCE_CONFIG = "config_sentence_transformers.json"
