"""``python -m deploy`` is the console script."""

from deploy.cli import main

main()
