"""
Message pipes of each kind behind four verbs: peek, send, take, wait.

Must not know counters and addresses.
"""
