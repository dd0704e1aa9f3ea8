"""What comes in and what is kept: AIST++, observations, pairs, videos."""
