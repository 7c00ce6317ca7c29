"""
What the operating system is asked for: system calls, descriptors, peers, processes, polling,
closing.

Must not know any noun of ours: no channel, no container, no message.
"""
