"""Where it all runs: the embedded default on one machine, and recipes for clusters."""
