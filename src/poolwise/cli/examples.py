"""Examples at the end of the help of commands."""

from __future__ import annotations

EXAMPLES = {
    "run": """
poolwise run --out runs/demo
poolwise run --data folder:photos --preset default --plan
poolwise run --data folder:photos --preset default --time-budget 8h --out runs/photos
""",
    "search": """
poolwise search --data folder:photos --preset default --out runs/photos
poolwise rank runs/photos
""",
    "rank": """
poolwise rank runs/photos
poolwise rank runs/photos --max-macs 1.0
""",
    "retrain": """
poolwise retrain runs/photos --plan
poolwise retrain runs/photos --until-decided
""",
    "export": """
poolwise export runs/photos --to model.onnx
poolwise export runs/photos --pooling cheap --to model.safetensors
poolwise export runs/photos --pooling default --seed 2 --to python
""",
    "compare": """
poolwise compare --table resnet20-cifar10-published
poolwise compare --table resnet20w8-cifar10-10k --methods mixture,spos --budgets 1500 --plan
""",
}
