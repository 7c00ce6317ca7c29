"""
Carries messages from one channel to another, counts them in, and knows by a policy when they are
handled.

Must not know kinds of sockets and freezers.
"""
