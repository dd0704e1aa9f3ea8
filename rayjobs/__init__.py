"""The jobs: what `ray job submit` runs. One module per job, each `python -m rayjobs.<name> --help`."""
