"""A higher-resolution output from a timm model: which block's stride to give up, and the same weights before and after.

pip install 'poolwise[timm]' && python examples/timm_model.py
"""

import timm
import torch

import poolwise

model = timm.create_model("resnet26d", pretrained=False, num_classes=10).eval()
images = torch.randn(2, 3, 224, 224)

found = poolwise.slots(model)
print(f"resnet26d downsamples as {found.pooling}; {found.space.size} placements have as many downsamplings")
for slot in found.layers:
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
    poolwise.apply(model, "2-2-4")  # the last stage keeps the resolution of the one before: 14 x 14 instead of 7 x 7
    print(
        "features after: ",
        [tuple(model.forward_features(images).shape[2:])],
        [e["reduction"] for e in model.feature_info],
    )
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(poolwise.apply(model, found.pooling)(images), before)
print("back at its own placement the output is the same to the bit")
