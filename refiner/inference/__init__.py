"""Using a trained refiner."""
