"""C{python -m chanproxy}: as the command C{chanproxy}."""

from chanproxy.commands.main import main

if __name__ == "__main__":
    main()
