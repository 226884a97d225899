"""Selection: decide which configurations to train, pick and retrain."""
