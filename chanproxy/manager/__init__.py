"""
The manager: what can be asked of a running service by its control socket, and who may.

Must not know how a service starts.
"""
