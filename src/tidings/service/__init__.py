"""The use-cases: what a caller may do, in which order it is judged, and what is written.

tokens        who is calling, and the life of tokens
webhooks      establish, read, list, replace filters, remove
publishing    events and resources
rates         how often a token may call
"""
