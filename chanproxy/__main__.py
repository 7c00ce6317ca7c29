"""C{python -m chanproxy}: as the command C{chanproxy}."""

from chanproxy.commands.main import main

main()
