"""Subgraphs that stand for one operator become that operator. Exact."""
