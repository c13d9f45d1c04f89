"""The file a run writes: while it grows, finished, merged from shards, read again."""
