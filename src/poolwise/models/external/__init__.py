"""External networks (torchvision, timm, user code): slots, strides, and the adapter that makes them searchable."""
