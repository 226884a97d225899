"""Raise the output resolution of a timm model: remove the stride of one block and keep all weights.

pip install 'poolwise[timm]' && python examples/timm_model.py
"""

import timm
import torch

import poolwise

model = timm.create_model("resnet26d", pretrained=False, num_classes=10).eval()
images = torch.randn(2, 3, 224, 224)

slots = poolwise.slots(model)
print(
    f"resnet26d downsamples as {slots.pooling}; {slots.space.size} configurations have the same number of downsamplings"
)
for slot in slots.layers:
    print(
        f"  {slot.name:10s} {slot.resolution:4d} pixels, {slot.channels:5d} channels, {slot.macs / 1e6:7.1f} MMACs, {slot.how}"
    )

weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
with torch.no_grad():
    before = model(images)
    print(
        "features before:",
        [tuple(model.forward_features(images).shape[2:])],
        [e["reduction"] for e in model.feature_info],
    )
    poolwise.apply(model, "2-2-4")  # the last stage runs at 14 x 14 instead of 7 x 7
    print(
        "features after: ",
        [tuple(model.forward_features(images).shape[2:])],
        [e["reduction"] for e in model.feature_info],
    )
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(poolwise.apply(model, slots.pooling)(images), before)
print("back to the default configuration: the output is bitwise equal")
