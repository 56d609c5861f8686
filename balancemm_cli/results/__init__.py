"""From finished runs to numbers a reader can judge: metrics, statistics, published numbers, tables."""
