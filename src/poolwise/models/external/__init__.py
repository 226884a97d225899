"""Networks from elsewhere (torchvision, timm, the user's own): slots, strides, and the adapter that makes them searchable."""
