"""Measuring: data sets, classical peers, the method by parts, tables, figures, reports and benchmarks."""
