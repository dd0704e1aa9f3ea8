"""The network, its inputs and its checkpoints."""
