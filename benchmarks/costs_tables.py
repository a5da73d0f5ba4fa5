"""What packing, a call and joining layers cost: tables from `costs.json`."""

from __future__ import annotations

from results_tables import load, machine, source, table


def costs_block() -> str:
    """Packing, a call, neighbors, joining."""
    stored = load("costs.json")
    packing = table(
        ["layer", "sparsity", "MB of dense weight per second", "peak memory above the dense weight", "packed"],
        [
            [
                "x".join(map(str, row["shape"])),
                f"{row['sparsity']:.0%}",
                f"{row['mb_per_second']:.0f}",
                f"{row['peak_bytes_per_dense_byte']:.2f} of it",
                f"{row['packed_bytes_per_dense_byte']:.2f} of it",
            ]
            for row in stored["packing"]
        ],
        text_columns=1,
    )
    call = stored["call_us"]
    turns = table(
        ["tokens", "threads", "alone", "interleaved", "dense alone", "dense interleaved"],
        [
            [
                row["tokens"],
                row["threads"],
                *(
                    f"{1e6 * value:.0f}"
                    for kind in ("sparse", "dense")
                    for value in (row[kind], row[f"{kind}_and_others"] - row["others"])
                ),
            ]
            for row in stored["alternation"]
        ],
    )
    joins = table(
        ["width", "tokens", "threads", "apart", "joined", "speed-up"],
        [
            [
                *(row[name] for name in ("width", "tokens", "threads")),
                *(f"{1e6 * row[name]:.0f}" for name in ("apart", "joined")),
                f"{row['apart'] / row['joined']:.2f}x",
            ]
            for row in stored["joining"]
        ],
    )
    return (
        f"From `nn.Linear` to a packed layer, one thread:\n\n{packing}\n\nA call of a 16x16 layer with one token takes "
        f"{call['sparse']:.1f} microseconds, `nn.Linear` {call['dense']:.1f}.\n\nMicroseconds of a 768x768 layer at "
        "80%, alone and interleaved with torch's LayerNorm, attention and softmax (time of all less theirs):\n\n"
        f"{turns}\n\nMicroseconds of three layers of one input at 90%, apart and as a `JoinedLinear`:\n\n{joins}\n\n"
        f"{machine(stored['environment'])} {source('costs.json')}"
    )
