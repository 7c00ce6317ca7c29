"""
Programs that the kernel runs for us, through C{bpf(2)}: no compiler, and no library.

Knows nothing of containers.
"""
