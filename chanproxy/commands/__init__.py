"""
What is typed in a shell.

The front door: nothing imports it.
"""
