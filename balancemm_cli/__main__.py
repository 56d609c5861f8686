"""Lets `python -m balancemm_cli` (and torchrun) start the same program as `bmm`."""

from balancemm_cli.cli import main

if __name__ == "__main__":
    main()
