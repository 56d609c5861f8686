"""From finished runs to what a reader can judge: statistics, published numbers, verdicts, tables, figures."""
