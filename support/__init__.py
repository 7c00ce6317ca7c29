"""
What tests, benchmarks and the docs' own programs share; of each, whoever uses it knows more.

Must not know the tests, the benchmarks, or pytest: a benchmark starts where there is none.
"""
