"""Facts of an invented model: every section of the page has something to say."""

from sparsekit.report.facts import DENSE, OURS, EngineTime, Facts, LayerFacts, ModelSize, Quality, Score

ENVIRONMENT = {
    "cpu": "A processor",
    "cpu_family": 26,
    "cpu_model": 2,
    "processors": 2,
    "isa": "avx512vbmi",
    "system": "Linux x86_64",
    "python": "3.11.7",
    "sparsekit": "0.1.0",
    "build": "g++",
    "packages": {"torch": "2.13.0", "onnxruntime": "1.30"},
}


def times(texts, tokens, **changed):
    """Engines by milliseconds: ours, a float32 peer, two in int8, the faster of which is wrong."""
    ms = {"sparsekit.engine": 2.0, "torch": 8.0, "onnxruntime": 6.0, "openvino-int8": 3.0, "other-int8": 1.0} | changed
    kinds = {"sparsekit.engine": "ours", "torch": "float32", "onnxruntime": "float32"}
    return [
        EngineTime(
            name,
            kinds.get(name, "int8"),
            texts,
            tokens,
            1,
            value,
            (0.9 * value, 1.1 * value),
            wrong=name == "other-int8",
            difference=1e-6,
            operators={"aten::addmm": 1.5, "python": 0.5} if name == "sparsekit.engine" else {},
        )
        for name, value in ms.items()
    ]


def facts(**changed):
    scores = [Score("accuracy", DENSE, 0.8, (0.77, 0.83)), Score("accuracy", OURS, 0.76, (0.73, 0.79))]
    layers = [
        LayerFacts(f"encoder.layer.{number}.query", (64, 32), 0.75, "int8", "4x1", "sell", 1024) for number in range(3)
    ]
    layers.append(LayerFacts("classifier", (2, 32), 0.0, "float32", "", "dense", 256, "ignored by name"))
    given = {
        "model": "small",
        "environment": ENVIRONMENT,
        "commands": ["sparsekit report small --dense big"],
        "times": [*times(1, 16), *times(16, 128, **{"openvino-int8": 1.6})],
        "quality": Quality(scores, {"accuracy": (-0.04, (-0.06, -0.02))}, "95% of something", ["1,000 texts."]),
        "layers": layers,
        "sizes": [ModelSize(f"{OURS}, sparsekit.engine", 12_300_000, 20_100_000), ModelSize(DENSE, 91_000_000, None)],
        "unknown": ["--more says more."],
    }
    return Facts(**{**given, **changed})
