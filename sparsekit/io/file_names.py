"""Names of the files in a model folder."""

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
MANIFEST = "sparsekit.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
RECIPE = "recipe.yaml"
CARD = "README.md"
VERIFICATION = "verification.safetensors"
#: sentence-transformers: the modules of a model.
SENTENCE_MODULES = "modules.json"
#: sentence-transformers: tokenization options, beside the transformers model.
SENTENCE_OPTIONS = "sentence_bert_config.json"
#: sentence-transformers: prompts, and a reranker's activation function, beside modules.json.
SENTENCE_CONFIG = "config_sentence_transformers.json"
