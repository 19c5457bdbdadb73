"""How fast it is, measured against yardsticks in the same run: `make bench`. Nothing here asserts a time."""
