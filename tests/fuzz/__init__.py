"""Fuzzing of what strangers write: targets' URLs, and the bytes that targets answer with.

Each module has a `check(dice)`: it makes one input out of a corpus by mutating it, and holds the code to what must be
true of any input, against judgements that are not the code's own. `make test` tries some thousands of each, `make fuzz`
as many as its time allows. What fails is told with its seed; once mended, the input is kept as a test.
"""
