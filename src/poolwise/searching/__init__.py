"""What is probably good: the mixture of SuperNets and the ranking made from it."""
