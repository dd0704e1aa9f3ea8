"""A page without a server: a folder that any web host can hand out, in which MediaPipe and the refiner run in the browser."""
