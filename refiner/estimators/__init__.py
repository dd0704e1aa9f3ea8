"""From pictures to landmarks: one module for each estimator."""
