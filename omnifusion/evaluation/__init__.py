"""Measuring: the method, table 2 and classical baselines on sets of clips, and tables."""
