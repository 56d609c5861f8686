"""From media to the prepared folder: list, check, decode, write shards; and what was prepared."""
