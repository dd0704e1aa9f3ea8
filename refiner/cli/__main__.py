"""The command `refiner`, as `python -m refiner.cli`."""

from refiner.cli.main import main

if __name__ == "__main__":
    main()
