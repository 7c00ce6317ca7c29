"""
C{chanproxy doctor}: what chanproxy needs of a machine, looked for and tried.

Each module is about one matter, and gives findings; L{chanproxy.commands.doctor.command} prints
them.
"""
