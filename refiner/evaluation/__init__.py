"""How good poses are, beside what, and how sure that is."""
