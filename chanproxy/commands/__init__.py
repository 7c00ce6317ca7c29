"""
What is typed in a shell.

The front door.  Nothing else imports it.
"""

__all__: list[str] = []
