"""Search on a folder of generated images and export the pick to ONNX. Takes less than a minute.

pip install 'poolwise[onnx]' && python examples/export_onnx.py
"""

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

import poolwise

generator = np.random.default_rng(0)
with tempfile.TemporaryDirectory() as directory:
    folder = Path(directory) / "images"
    for name, color in (("red", (170, 90, 90)), ("green", (90, 170, 90)), ("blue", (90, 90, 170))):
        (folder / name).mkdir(parents=True)
        for i in range(40):
            pixels = np.clip(generator.normal(0, 45, (16, 16, 3)) + color, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    config = poolwise.preset(
        "demo", data=f"folder:{folder}", image_size=16, width=4, steps=60, batch_size=16, retrain_steps=20,
        retrain_seeds=2, precision="float32", threads=1, workers=1,
    )  # fmt: skip
    run, file = Path(directory) / "run", Path(directory) / "model.onnx"
    print(poolwise.run(config, run)["verdict"])
    print(poolwise.export(run, file))
    print(poolwise.python_code(run))
    session = onnxruntime.InferenceSession(str(file))
    (logits,) = session.run(None, {"images": np.zeros((4, 3, 16, 16), np.float32)})
    print("shape of the logits of four images:", logits.shape)
