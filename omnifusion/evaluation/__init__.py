"""Measuring: data sets, classical baselines, the method by parts, and tables."""
