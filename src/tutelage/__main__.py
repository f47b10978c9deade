"""Run the command line as `python -m tutelage`."""

from tutelage.cli import main

main()
