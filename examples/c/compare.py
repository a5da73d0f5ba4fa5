"""Compare the vector on standard input with that in a file, both as embed.c prints them.

compare.py FILE [TOLERANCE]
"""

import sys
from pathlib import Path

#: Of the largest number: the order of sums differs between processors.
TOLERANCE = float(sys.argv[2]) if len(sys.argv) > 2 else 1e-5

expected = [float(number) for number in Path(sys.argv[1]).read_text().split()]
found = [float(number) for number in sys.stdin.read().split()]
if not expected or len(found) != len(expected):
    sys.exit(f"expected {len(expected)} numbers, got {len(found)}")
apart = max(abs(one - other) for one, other in zip(found, expected, strict=True))
if not apart <= TOLERANCE * max(map(abs, expected)):
    sys.exit(f"expected {expected}, got {found}: {apart} apart")
print(f"{len(found)} numbers, at most {apart:.1e} apart")
