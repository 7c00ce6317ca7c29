"""
Addresses: read, listened at, dialled.

Must not know counters and containers.
"""
