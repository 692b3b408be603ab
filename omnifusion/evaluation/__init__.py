"""Measuring: data sets, classical baselines, the method by parts, tables, figures, reports and benchmarks."""
