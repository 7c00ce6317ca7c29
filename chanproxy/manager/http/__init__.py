"""
The manager over HTTP: the same calls, with the same words, for browsers and what speaks no Varlink.

Must not know how a service starts.  Loaded only where the configuration asks for it.
"""
