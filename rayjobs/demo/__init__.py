"""The whole path on one machine, and its report."""
